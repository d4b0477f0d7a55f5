#include <sched.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <utility>

#include "probe/milestones.hpp"
#include "probe/rdma.hpp"
#include "probe/run.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::uint64_t kProtocol = 0x52420001;  // "RB", version 1

// How many messages are in flight on a queue pair, how many go to the NIC at a time, and how many
// of them share one completion.
struct Shape {
  std::size_t depth;
  std::size_t list;
  std::size_t signal;

  // Of large messages few are enough: 8 MiB in flight are 170 us at 400 Gb/s, more than any path
  // within a cluster takes; more of them only take long to drain from a slow link. Small ones are
  // handed over many at a time, for each handing over costs as much as a message or more; reads
  // fewer, since a NIC asks for some sixteen at a time, and goes on as each is answered.
  static Shape of(const QueuePairsSpec& spec, std::size_t size, Verb verb) {
    constexpr std::size_t kInFlight = 8U << 20;
    constexpr std::size_t kSmall = 8192;
    constexpr std::size_t kLarge = 65536;
    const auto count = static_cast<std::size_t>(spec.count);
    const auto deepest = static_cast<std::size_t>(spec.depth);
    const std::size_t depth = std::clamp<std::size_t>(kInFlight / size / count, 2, deepest);
    const std::size_t most = verb == Verb::kRead ? 4 : 16;
    const std::size_t some = std::max<std::size_t>(1, std::min(depth / 4, most));
    const auto asked = static_cast<std::size_t>(spec.post_list);
    const std::size_t list = asked > 0 ? std::min(asked, depth) : size <= kSmall ? some : 1;
    const std::size_t signal = std::max(list, size < kLarge ? some : 1);
    return {.depth = std::max(depth, list), .list = list, .signal = signal};
  }
};

class Run {
 public:
  Run(QueuePairs& pairs, const RdmaBandwidthSpec& spec, const Watch& watch)
      : pairs_(pairs),
        spec_(spec),
        watch_(watch),
        progress_("bandwidth", spec.size),
        answers_(!spec.initiates || spec.two_way),
        shape_(Shape::of(pairs.spec(), spec.size, spec.verb)),
        receives_(spec.verb == Verb::kSend && answers_ ? receive_depth() : 0),
        window_(spec),
        milestones_(pairs.control(), kDone) {}

  RdmaBandwidthResult go() {
    progress_.phase(Phase::kAgree);
    agree();
    const auto count = static_cast<std::size_t>(pairs_.spec().count);
    Memory memory(pairs_, count, spec_.size);
    const int inline_size = std::max(0, pairs_.spec().inline_size);
    Joined joined(pairs_, count, shape_.depth + 1, std::max<std::size_t>(1, receives_),
                  inline_size);
    memory_ = &memory;
    joined_ = &joined;
    prepare_receives();
    joined.join(watch_);
    remote_ = swap_places(pairs_, memory, watch_);
    prepare_sends();
    progress_.phase(Phase::kWarmup);
    transfer();
    RdmaBandwidthResult result;
    result.memory = memory.way();
    result.posting = joined.posting();
    static_cast<WindowCount&>(result) = window_.count();
    if (spec_.verify) {
      progress_.phase(Phase::kVerify);
      verify(result);
    }
    progress_.phase(Phase::kClose);
    const Words theirs = swap_words(
        pairs_.control(), {result.bytes, static_cast<std::uint64_t>(result.elapsed)}, watch_);
    result.peer_bytes = theirs[0];
    result.peer_elapsed = static_cast<Nanos>(theirs[1]);
    return result;
  }

 private:
  struct Lane {
    std::vector<verbs::SendWr> chain;
    std::vector<verbs::Sge> places;
    std::size_t slot = 0;       // of the next message, where places are written anew
    std::size_t in_flight = 0;  // not known to have completed
    std::size_t silent = 0;     // of them those that no completion will tell of yet
    std::size_t arrived = 0;    // messages of the other end
    std::size_t received = 0;   // of them those whose receives have not been posted again
    std::size_t next = 0;       // slot of the next receive to be posted
  };

  enum Milestone : std::uint8_t { kRunning = 1, kCounted, kDone };

  // Receives that wait on a queue pair: more than messages are in flight, so that one that has been
  // taken can be posted again before it is missed.
  std::size_t receive_depth() const {
    constexpr std::size_t kMost = 16384;  // of all; a completion queue has about so many entries
    const auto count = static_cast<std::size_t>(pairs_.spec().count);
    return std::max(shape_.depth, std::min<std::size_t>(4 * shape_.depth, kMost / count));
  }

  void agree() {
    const auto flags = [this](bool initiates) {
      return static_cast<std::uint64_t>(initiates ? 1 : 0) | (spec_.two_way ? 2U : 0U) |
             (spec_.verify ? 4U : 0U) | static_cast<std::uint64_t>(spec_.verb) << 8;
    };
    const std::uint64_t layout =
        static_cast<std::uint64_t>(pairs_.spec().count) | (pairs_.spec().cold ? 1U << 16 : 0U);
    const Words mine = {kProtocol,
                        spec_.size,
                        flags(spec_.initiates),
                        static_cast<std::uint64_t>(spec_.duration),
                        spec_.messages,
                        static_cast<std::uint64_t>(spec_.warmup),
                        spec_.warmup_messages,
                        layout};
    const Words theirs = swap_words(pairs_.control(), mine, watch_);
    expect_agreement(theirs[0] == mine[0], "kind of run");
    expect_agreement(theirs[1] == mine[1], "size");
    expect_agreement(theirs[2] == flags(answers_), "direction");
    expect_agreement(theirs[3] == mine[3], "duration");
    expect_agreement(theirs[4] == mine[4], "messages");
    expect_agreement(theirs[5] == mine[5] && theirs[6] == mine[6], "warm-up");
    expect_agreement(theirs[7] == mine[7], "queue pairs");
  }

  void prepare_receives() {
    lanes_.resize(joined_->count());
    for (std::size_t i = 0; receives_ > 0 && i < lanes_.size(); ++i) {
      lanes_[i].received = receives_;
      post_receives(i);
    }
  }

  // The slots in turn: the n-th message lands in slot n modulo their number, wherever it comes
  // from.
  void post_receives(std::size_t index) {
    constexpr std::size_t kAtOnce = 64;
    std::array<verbs::RecvWr, kAtOnce> chain;
    std::array<verbs::Sge, kAtOnce> places;
    Lane& lane = lanes_[index];
    while (lane.received > 0) {
      const std::size_t n = std::min(lane.received, kAtOnce);
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t here = memory_->incoming(memory_->base(), index, lane.next);
        lane.next = lane.next + 1 == memory_->slots() ? 0 : lane.next + 1;
        places[i] = {.addr = here,
                     .length = static_cast<std::uint32_t>(spec_.size),
                     .lkey = memory_->region().lkey};
        chain[i] = {.wr_id = index,
                    .next = i + 1 < n ? &chain[i + 1] : nullptr,
                    .sg_list = &places[i],
                    .num_sge = 1};
      }
      joined_->post(index, chain.data());
      lane.received -= n;
    }
  }

  // The requests of a chain are written once and posted again and again; only where messages come
  // from more places than a chain has (cold memory) the places are written anew each time.
  void prepare_sends() {
    for (std::size_t index = 0; spec_.initiates && index < lanes_.size(); ++index) {
      Lane& lane = lanes_[index];
      lane.chain.assign(shape_.list, request_of(spec_.verb));
      lane.places.resize(shape_.list);
      for (std::size_t i = 0; i < shape_.list; ++i) {
        verbs::SendWr& request = lane.chain[i];
        lane.places[i] = {.addr = 0,
                          .length = static_cast<std::uint32_t>(spec_.size),
                          .lkey = memory_->region().lkey};
        request.sg_list = &lane.places[i];
        request.rdma.rkey = remote_.key;
        if (i + 1 < shape_.list) request.next = &request + 1;
        if (spec_.size <= joined_->inline_size() && spec_.verb != Verb::kRead)
          request.send_flags = verbs::kSendInline;
        write_places(index, i, i % memory_->slots());
      }
      if (all_told()) tell_of(lane.chain.back(), index, shape_.list);
    }
  }

  // Whether a completion tells of each chain: then nothing changes from one posting to the next.
  bool all_told() const { return shape_.signal == shape_.list; }

  static void tell_of(verbs::SendWr& last, std::size_t index, std::size_t messages) {
    last.send_flags |= verbs::kSendSignaled;
    last.wr_id = static_cast<std::uint64_t>(index) << 32 | messages;
  }

  void write_places(std::size_t index, std::size_t request, std::size_t slot) {
    const bool pulls = spec_.verb == Verb::kRead;
    Lane& lane = lanes_[index];
    lane.places[request].addr = pulls ? memory_->incoming(memory_->base(), index, slot)
                                      : memory_->outgoing(memory_->base(), index, slot);
    lane.chain[request].rdma.remote_addr = pulls ? memory_->outgoing(remote_.base, index, slot)
                                                 : memory_->incoming(remote_.base, index, slot);
  }

  // Hands the chain to the NIC, or its first message alone; a completion tells of them when
  // enough have gathered, or when ``told`` asks for one.
  void post(std::size_t index, std::size_t n, bool told) {
    Lane& lane = lanes_[index];
    for (std::size_t i = 0; pairs_.spec().cold && i < n; ++i) {
      write_places(index, i, lane.slot);
      lane.slot = lane.slot + 1 == memory_->slots() ? 0 : lane.slot + 1;
    }
    if (all_told()) {
      joined_->post(index, lane.chain.data());
      return;
    }
    verbs::SendWr& last = lane.chain[n - 1];
    lane.silent += n;
    verbs::SendWr* const next = last.next;
    const unsigned flags = last.send_flags;
    last.next = nullptr;
    if (told || lane.silent >= shape_.signal) {
      tell_of(last, index, lane.silent);
      lane.silent = 0;
    }
    joined_->post(index, lane.chain.data());
    last.next = next;
    last.send_flags = flags;
  }

  void transfer() {
    milestones_.begin();
    if (!spec_.initiates) {
      milestones_.reach(kRunning);
      milestones_.reach(kCounted);
    }
    Nanos next_look = now();
    Nanos came_last = next_look;
    seen_ = next_look;
    std::size_t in_vain = 0;
    while (!done_ || milestones_.peer() != kDone) {
      const bool moved = spec_.initiates && !done_ && drive();
      const bool came = receives_ > 0 && receive();
      in_vain = moved || came ? 0 : in_vain + 1;
      if (!spec_.initiates && milestones_.peer() == kDone) finish();
      // What the other end says is listened to now and then only: it is a call into the system.
      // Whoever has nothing else to do waits for it.
      constexpr Nanos kOften = 1'000'000;
      const bool idle = receives_ == 0 && (done_ || !spec_.initiates);
      const Nanos at = idle ? next_look : moved ? seen_ : now();
      if (in_vain == 0) came_last = at;
      if (!idle) make_way(in_vain, at - came_last);
      if (at < next_look) continue;
      next_look = at + kOften;
      watch_.check();
      milestones_.listen(idle, watch_);
      progress_.phase(window_.open() || !spec_.initiates ? Phase::kTimed : Phase::kWarmup);
      progress_.iteration(window_.count().messages);
    }
    milestones_.finish(watch_);
    // That it was acknowledged does not mean that this end has seen it.
    const std::uint64_t coming = swap_words(pairs_.control(), {posted_}, watch_)[0];
    while (receives_ > 0 && received_ < coming) {
      receive();
      watch_.check();
    }
  }

  // A NIC in software needs a CPU for what is waited for, and it may be this very one. One in
  // hardware is never silent for so long that this end would sleep while queue pairs are full.
  static void make_way(std::size_t in_vain, Nanos silent) {
    constexpr std::size_t kTurns = 64;
    constexpr Nanos kLong = 1'000'000;
    constexpr timespec kNap{.tv_sec = 0, .tv_nsec = 20'000};
    if (in_vain > 0 && silent >= kLong)
      nanosleep(&kNap, nullptr);
    else if (in_vain % kTurns == kTurns - 1)
      sched_yield();
  }

  // Keeps every queue pair full until both ends have counted, then lets them run empty. True when
  // something has completed, at ``seen_``.
  bool drive() {
    const bool over = window_.closed() && milestones_.peer() >= kCounted;
    std::size_t in_flight = 0;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      Lane& lane = lanes_[i];
      std::size_t more = 0;
      for (; !over && lane.in_flight + more + shape_.list <= shape_.depth; more += shape_.list)
        post(i, shape_.list, false);
      // One more, which tells of those that nothing would tell of.
      if (over && lane.silent > 0) {
        post(i, 1, true);
        more = 1;
      }
      posted_ += more;
      lane.in_flight += more;
      in_flight += lane.in_flight;
    }
    if (over && in_flight == 0) {
      finish();
      return false;
    }
    std::array<verbs::Wc, kBatch> done;
    const std::size_t n = joined_->sent(done);
    std::uint64_t messages = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t told = done[i].wr_id & 0xFFFFFFFFU;
      lanes_[done[i].wr_id >> 32].in_flight -= told;
      messages += told;
    }
    gathered_ += messages;
    // Reading the clock costs as much as several messages: once for what came at a stretch.
    constexpr int kStretch = 8;
    if (n > 0 && ++polls_ < kStretch) return true;
    if (gathered_ == 0) return false;
    seen_ = now();
    window_.add(seen_, gathered_, gathered_ * spec_.size, milestones_.peer() >= kRunning);
    gathered_ = 0;
    polls_ = 0;
    if (milestones_.mine() < kRunning) milestones_.reach(kRunning);
    if (milestones_.mine() < kCounted && window_.closed()) milestones_.reach(kCounted);
    return true;
  }

  // All that has come: whoever sends as well must not fall behind with it. True when something has.
  bool receive() {
    std::array<verbs::Wc, kBatch> done;
    std::size_t n = kBatch;
    const std::uint64_t before = received_;
    while (n == kBatch) {
      n = joined_->received(done);
      received_ += n;
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t index = done[i].wr_id;
        ++lanes_[index].arrived;
        if (++lanes_[index].received >= std::max<std::size_t>(1, receives_ / 4))
          post_receives(index);
      }
    }
    return received_ > before;
  }

  void finish() {
    done_ = true;
    milestones_.reach(kDone);
  }

  void verify(BandwidthResult& result) {
    std::vector<std::size_t> landings;
    landings.reserve(lanes_.size());
    for (const Lane& lane : lanes_) landings.push_back(lane.arrived % memory_->slots());
    const Mismatch found = verify_rdma(pairs_, *joined_, *memory_, remote_, spec_.verb, spec_.size,
                                       spec_.initiates, answers_, landings, spec_.seed, watch_);
    result.wrong = found.wrong;
    result.first_bad = found.first_bad;
  }

  static constexpr std::size_t kBatch = 32;

  QueuePairs& pairs_;
  const RdmaBandwidthSpec& spec_;
  const Watch& watch_;
  ProgressOwner progress_;
  bool answers_;
  Shape shape_;
  std::size_t receives_;
  Window window_;
  const Memory* memory_ = nullptr;
  const Joined* joined_ = nullptr;
  Remote remote_{};
  std::vector<Lane> lanes_;
  std::uint64_t gathered_ = 0;  // completed, and not in the window yet
  int polls_ = 0;               // that they came from
  Nanos seen_ = 0;
  std::uint64_t posted_ = 0;
  std::uint64_t received_ = 0;
  bool done_ = false;
  Milestones milestones_;
};

}  // namespace

RdmaBandwidthResult measure_rdma_bandwidth(QueuePairs& pairs, const RdmaBandwidthSpec& spec,
                                           const Watch& watch) {
  const auto valid = [](bool holds, const char* what) {
    if (!holds) throw Error(Fault::kInvalid, what);
  };
  valid(spec.size >= 1 && spec.size <= kLargestRdmaMessage, "size");
  valid(spec.duration > 0 || spec.messages > 0, "duration and messages");
  valid(spec.duration >= 0 && spec.warmup >= 0 && spec.interval > 0, "duration");
  valid(spec.initiates || !spec.two_way, "direction");
  return with_port(pairs, [&] { return Run(pairs, spec, watch).go(); });
}

}  // namespace cwai

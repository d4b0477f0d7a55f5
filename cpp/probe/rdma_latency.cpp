#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>
#include <vector>

#include "probe/milestones.hpp"
#include "probe/rdma.hpp"
#include "probe/run.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::uint64_t kProtocol = 0x524C0002;  // "RL", version 2
constexpr std::uint8_t kDone = 1;                // the only milestone
constexpr std::size_t kFirst = 0;                // the queue pair that is used
constexpr std::size_t kDepth = 64;               // of requests that have not been seen to complete
constexpr std::size_t kReceives = 64;
constexpr std::size_t kBatch = 16;

class Run {
 public:
  Run(QueuePairs& pairs, const RdmaLatencySpec& spec, const Watch& watch)
      : pairs_(pairs),
        spec_(spec),
        watch_(watch),
        progress_("latency", spec.size),
        milestones_(pairs.control(), kDone),
        memory_(pairs, 1, spec.size),
        joined_(pairs, 1, kDepth + 1, spec.verb == Verb::kSend ? kReceives : 1,
                spec.verb == Verb::kRead ? 0 : pairs.spec().inline_size) {}

  LatencyResult go() {
    progress_.phase(Phase::kAgree);
    agree();
    for (std::size_t i = 0; spec_.verb == Verb::kSend && i < kReceives; ++i) post_receive();
    joined_.join(watch_);
    remote_ = swap_places(pairs_, memory_, watch_);
    prepare();
    progress_.phase(Phase::kTimed);
    milestones_.begin();
    next_look_ = now();
    LatencyResult result;
    if (spec_.initiates)
      result.samples = ask();
    else if (spec_.verb != Verb::kRead)
      answer();
    drain();
    milestones_.reach(kDone);
    milestones_.finish(watch_);
    if (spec_.verify) {
      progress_.phase(Phase::kVerify);
      const std::array landings = {arrived_ % memory_.slots()};
      const Mismatch found =
          verify_rdma(pairs_, joined_, memory_, remote_, spec_.verb, spec_.size, spec_.initiates,
                      !spec_.initiates, landings, spec_.seed, watch_);
      result.wrong = found.wrong;
      result.first_bad = found.first_bad;
    }
    progress_.phase(Phase::kClose);
    swap_words(pairs_.control(), {kProtocol}, watch_);
    return result;
  }

 private:
  void agree() {
    const auto flags = [this](bool initiates) {
      return static_cast<std::uint64_t>(initiates ? 1 : 0) | (spec_.verify ? 4U : 0U) |
             static_cast<std::uint64_t>(spec_.verb) << 8;
    };
    const Words mine = {kProtocol,
                        spec_.size,
                        flags(spec_.initiates),
                        spec_.iterations,
                        static_cast<std::uint64_t>(spec_.duration),
                        spec_.warmup,
                        pairs_.spec().cold ? 1U : 0U,
                        0};
    const Words theirs = swap_words(pairs_.control(), mine, watch_);
    expect_agreement(theirs[0] == mine[0], "kind of run");
    expect_agreement(theirs[1] == mine[1], "size");
    expect_agreement(theirs[2] == flags(!spec_.initiates), "direction");
    expect_agreement(theirs[3] == mine[3], "iterations");
    expect_agreement(theirs[4] == mine[4], "duration");
    expect_agreement(theirs[5] == mine[5], "warm-up");
    expect_agreement(theirs[6] == mine[6], "cold memory");
  }

  // One slot for all: a message that has come is the last one that was sent.
  void prepare() {
    const bool pulls = spec_.verb == Verb::kRead;
    const std::uint64_t here = pulls ? memory_.incoming(memory_.base(), kFirst, 0)
                                     : memory_.outgoing(memory_.base(), kFirst, 0);
    from_ = Memory::host(here);
    place_ = {.addr = here,
              .length = static_cast<std::uint32_t>(spec_.size),
              .lkey = memory_.region().lkey};
    request_ = request_of(spec_.verb);
    request_.sg_list = &place_;
    request_.rdma = {.remote_addr = pulls ? memory_.outgoing(remote_.base, kFirst, 0)
                                          : memory_.incoming(remote_.base, kFirst, 0),
                     .rkey = remote_.key};
    flags_ = !pulls && spec_.size <= joined_.inline_size() ? verbs::kSendInline : 0U;
  }

  std::byte* incoming(std::size_t slot) const {
    return Memory::host(memory_.incoming(memory_.base(), kFirst, slot));
  }

  // ------------------------------------------------------------------------------- one message

  // A message ends with a byte that is another one than the last message's: that it has changed
  // tells whoever watches it that the message is here, as long as bytes come in order (write alone
  // relies on it, as every program does that waits for a flag).
  static constexpr unsigned kLast = 0x80;
  static std::byte mark(std::uint64_t number, bool last) {
    return static_cast<std::byte>((number % 127 + 1) | (last ? kLast : 0U));
  }

  void send(std::uint64_t number, bool last) {
    if (spec_.verb != Verb::kRead) from_[spec_.size - 1] = mark(number, last);
    // Completions are asked for now and then: they only make room.
    ++silent_;
    const bool told = spec_.verb == Verb::kRead || silent_ >= kDepth / 4 || last;
    request_.send_flags = flags_ | (told ? verbs::kSendSignaled : 0U);
    request_.wr_id = told ? std::exchange(silent_, 0) : 0;
    joined_.post(kFirst, &request_);
    ++in_flight_;
  }

  // Completions of what was sent; makes room for more.
  void reap() {
    std::array<verbs::Wc, kBatch> done;
    const std::size_t n = joined_.sent(done);
    for (std::size_t i = 0; i < n; ++i) in_flight_ -= done[i].wr_id;
  }

  // Waits for the message ``number`` of the other end; true when it is the last one.
  bool await(std::uint64_t number) {
    if (spec_.verb == Verb::kSend) {
      std::array<verbs::Wc, 1> done;
      spin([&] { return joined_.received(done) > 0; });
      const std::byte* here = incoming(arrived_ % memory_.slots());
      ++arrived_;
      const bool last = is_last(here[spec_.size - 1]);
      post_receive();
      return last;
    }
    // What the NIC writes no compiler knows of.
    const std::atomic_ref<std::byte> watched(incoming(0)[spec_.size - 1]);
    const std::byte plain = mark(number, false);
    std::byte seen{};
    spin([&] {
      seen = watched.load(std::memory_order_acquire);
      return (seen & ~std::byte{kLast}) == plain;
    });
    return is_last(seen);
  }

  static bool is_last(std::byte mark) { return (mark & std::byte{kLast}) != std::byte{}; }

  template <typename Ready>
  void spin(Ready ready) {
    constexpr int kTurns = 512;  // between two looks at the clock
    // A NIC in software may need this very CPU. One in hardware has answered by then, and a call
    // into the system would be part of what is measured.
    constexpr Nanos kPatience = 1'000'000;
    Nanos begun = 0;
    for (;;) {
      for (int turn = 0; turn < kTurns; ++turn)
        if (ready()) return;
      reap();  // what has failed says so there
      const Nanos at = look();
      if (begun == 0) begun = at;
      if (at - begun > kPatience) sched_yield();
    }
  }

  Nanos look() {
    const Nanos at = now();
    if (at < next_look_) return at;
    watch_.check(at);
    milestones_.listen(false, watch_);  // it may have gone
    next_look_ = at + kSlice;
    return at;
  }

  void post_receive() {
    std::byte* here = incoming(posted_++ % memory_.slots());
    verbs::Sge place{.addr = reinterpret_cast<std::uintptr_t>(here),
                     .length = static_cast<std::uint32_t>(spec_.size),
                     .lkey = memory_.region().lkey};
    verbs::RecvWr request{.wr_id = 0, .next = nullptr, .sg_list = &place, .num_sge = 1};
    joined_.post(kFirst, &request);
  }

  // ------------------------------------------------------------------------------- conversation

  // One there and one back.
  Nanos round_trip(std::uint64_t number, bool last) {
    const Nanos start = now();
    send(number, last);
    if (spec_.verb == Verb::kRead)
      spin([&] {
        reap();
        return in_flight_ == 0;
      });
    else
      await(number);
    const Nanos taken = now() - start;
    if (in_flight_ > kDepth / 2)
      spin([&] {
        reap();
        return in_flight_ <= kDepth / 2;
      });
    return taken;
  }

  std::vector<double> ask() {
    std::vector<double> samples;
    samples.reserve(spec_.iterations);
    std::uint64_t number = 0;
    while (number < spec_.warmup) round_trip(number++, false);
    const Nanos end = spec_.duration > 0 ? now() + spec_.duration : watch_.deadline();
    constexpr std::uint64_t kStride = 16;  // round trips between two looks at the clock
    for (std::uint64_t i = 0; i < spec_.iterations; ++i) {
      if (i % kStride == 0) {
        if (spec_.duration > 0 && i > 0 && now() >= end) break;
        look();
        progress_.iteration(i);
      }
      samples.push_back(seconds(round_trip(number++, false)));
    }
    if (spec_.verb != Verb::kRead) round_trip(number, true);
    return samples;
  }

  void answer() {
    for (std::uint64_t number = 0;; ++number) {
      const bool last = await(number);
      if (in_flight_ > kDepth / 2) reap();
      send(number, last);
      if (last) return;
    }
  }

  void drain() {
    spin([&] {
      reap();
      return in_flight_ == 0;
    });
  }

  QueuePairs& pairs_;
  const RdmaLatencySpec& spec_;
  const Watch& watch_;
  ProgressOwner progress_;
  Milestones milestones_;
  Memory memory_;
  Joined joined_;  // after the memory: it goes before it
  Remote remote_{};
  std::byte* from_ = nullptr;
  verbs::Sge place_{};
  verbs::SendWr request_{};
  unsigned flags_ = 0;
  std::size_t silent_ = 0;
  std::size_t in_flight_ = 0;
  std::uint64_t posted_ = 0;   // receives
  std::uint64_t arrived_ = 0;  // messages of the other end
  Nanos next_look_ = 0;
};

}  // namespace

LatencyResult measure_rdma_latency(QueuePairs& pairs, const RdmaLatencySpec& spec,
                                   const Watch& watch) {
  const auto valid = [](bool holds, const char* what) {
    if (!holds) throw Error(Fault::kInvalid, what);
  };
  constexpr std::uint64_t kMostSamples = 100'000'000;
  valid(spec.size >= 1 && spec.size <= kLargestRdmaMessage, "size");
  valid(spec.iterations >= 1 && spec.iterations <= kMostSamples, "iterations");
  valid(spec.duration >= 0, "duration");
  // Whoever waits looks at the memory; of a GPU's no CPU sees when it changes.
  valid(pairs.spec().gpu.empty(), "latency with memory of a GPU");
  return with_port(pairs, [&] { return Run(pairs, spec, watch).go(); });
}

}  // namespace cwai

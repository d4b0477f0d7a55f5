#include "probe/bandwidth.hpp"

#include <algorithm>

#include "probe/run.hpp"
#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::uint64_t kProtocol = 0x42570001;  // "BW", version 1

// How many messages are in flight per lane: what the transport needs, within 16 MiB per lane.
std::size_t depth_for(const Connection& connection, std::size_t size) {
  constexpr std::size_t kBytesInFlight = 16U << 20;
  return std::clamp<std::size_t>(kBytesInFlight / size, 1, connection.useful_depth());
}

class Run {
 public:
  Run(Connection& connection, const BandwidthSpec& spec, const Watch& watch)
      : connection_(connection),
        spec_(spec),
        watch_(watch),
        progress_("bandwidth", spec.size),
        depth_(depth_for(connection, spec.size)),
        lanes_(static_cast<std::size_t>(connection.lanes())),
        window_(spec) {}

  BandwidthResult go() {
    agree();
    connection_.prepare(Goal::kBandwidth);
    progress_.phase(Phase::kWarmup);
    transfer();
    window_.close();
    static_cast<WindowCount&>(result_) = window_.count();
    if (spec_.verify) {
      progress_.phase(Phase::kVerify);
      const Mismatch found =
          verify(connection_, spec_.size, spec_.sends, spec_.receives, spec_.seed, watch_);
      result_.wrong = found.wrong;
      result_.first_bad = found.first_bad;
    }
    progress_.phase(Phase::kClose);
    connection_.prepare(Goal::kLatency);
    const Words theirs = swap_words(
        connection_, {result_.bytes, static_cast<std::uint64_t>(result_.elapsed)}, watch_);
    result_.peer_bytes = theirs[0];
    result_.peer_elapsed = static_cast<Nanos>(theirs[1]);
    return std::move(result_);
  }

 private:
  struct Lane {
    std::uint64_t sending = 0;
    std::size_t lasts = 0;  // flagged messages posted
    std::size_t receiving = 0;
    bool ended = false;  // a flagged message has come
  };

  void agree() {
    progress_.phase(Phase::kAgree);
    connection_.prepare(Goal::kLatency);
    const auto flags = [this](bool sends, bool receives) {
      return static_cast<std::uint64_t>((sends ? 1 : 0) | (receives ? 2 : 0) |
                                        (spec_.verify ? 4 : 0));
    };
    const Words theirs =
        swap_words(connection_,
                   {kProtocol, spec_.size, flags(spec_.sends, spec_.receives),
                    static_cast<std::uint64_t>(spec_.duration), spec_.messages,
                    static_cast<std::uint64_t>(spec_.warmup), spec_.warmup_messages, depth_},
                   watch_);
    expect_agreement(theirs[0] == kProtocol, "kind of run");
    expect_agreement(theirs[1] == spec_.size, "size");
    expect_agreement(theirs[2] == flags(spec_.receives, spec_.sends), "direction");
    expect_agreement(theirs[3] == static_cast<std::uint64_t>(spec_.duration), "duration");
    expect_agreement(theirs[4] == spec_.messages, "messages");
    expect_agreement(
        theirs[5] == static_cast<std::uint64_t>(spec_.warmup) && theirs[6] == spec_.warmup_messages,
        "warm-up");
    expect_agreement(theirs[7] == depth_, "depth");
  }

  void transfer() {
    if (spec_.receives) {
      for (std::size_t i = 0; i < lanes_.size() * depth_; ++i) incoming_.emplace_back(spec_.size);
      for (std::size_t i = 0; i < incoming_.size(); ++i) {
        post_receive(i);
        ++lanes_[i % lanes_.size()].receiving;
        ++receiving_;
      }
    }
    // The sender runs a little longer than it was asked to, so that the receiver's window ends
    // under load.
    constexpr Nanos kMargin = 50'000'000;
    if (spec_.duration > 0) send_until_ = now() + spec_.warmup + spec_.duration + kMargin;
    if (spec_.sends) {
      body_.data()[0] = kMore;
      last_.data()[0] = kLast;
      for (std::size_t i = 0; i < lanes_.size() * depth_; ++i) post_next(i % lanes_.size(), now());
    }
    // Room for every lane in both directions, lest the first lanes take it all each time.
    std::vector<Completion> done(2 * lanes_.size());
    const Nanos warm_until = now() + spec_.warmup;
    Nanos next_look = watch_.slice_end();
    while (sending_ > 0 || receiving_ > 0) {
      const std::size_t n = connection_.wait(done, next_look);
      for (std::size_t i = 0; i < n; ++i) {
        expect_success(connection_, done[i]);
        if (done[i].direction == Direction::kSend)
          sent(done[i]);
        else
          received(done[i]);
      }
      const Nanos at = n > 0 ? done[n - 1].time : now();
      if (at >= next_look) {
        watch_.check(at);
        const bool warm = spec_.receives ? window_.open() : at >= warm_until;
        progress_.phase(warm ? Phase::kTimed : Phase::kWarmup);
        progress_.iteration(spec_.receives ? window_.count().messages : posted_);
        next_look = std::min(at + kSlice, watch_.deadline());
      }
    }
  }

  void sent(const Completion& completion) {
    Lane& lane = lanes_[static_cast<std::size_t>(completion.lane)];
    --lane.sending;
    --sending_;
    post_next(static_cast<std::size_t>(completion.lane), completion.time);
  }

  // A lane ends with as many flagged messages as the other end has receives posted when the first
  // arrives.
  void post_next(std::size_t index, Nanos at) {
    Lane& lane = lanes_[index];
    const bool over =
        (send_until_ != 0 && at >= send_until_) ||
        (spec_.messages != 0 && posted_ >= spec_.messages + spec_.warmup_messages + 1);
    if (over) {
      if (spec_.receives) window_.close();
      if (lane.lasts == depth_) return;
      ++lane.lasts;
    }
    const Buffer& message = over ? last_ : body_;
    connection_.post_send(static_cast<int>(index), {message.data(), spec_.size}, 0);
    ++lane.sending;
    ++sending_;
    ++posted_;
  }

  void post_receive(std::size_t slot) {
    connection_.post_receive(static_cast<int>(slot % lanes_.size()),
                             {incoming_[slot].data(), spec_.size}, slot);
  }

  void received(const Completion& completion) {
    const auto slot = static_cast<std::size_t>(completion.tag);
    Lane& lane = lanes_[static_cast<std::size_t>(completion.lane)];
    lane.ended = lane.ended || incoming_[slot].data()[0] == kLast;
    if (lane.ended) {
      // With fewer lanes than it was asked for a run by time is over; one by messages counts them
      // all.
      if (spec_.messages == 0) window_.close();
      --lane.receiving;
      --receiving_;
      return;
    }
    window_.add(completion.time, 1, completion.bytes);
    post_receive(slot);
  }

  Connection& connection_;
  const BandwidthSpec& spec_;
  const Watch& watch_;
  ProgressOwner progress_;
  std::size_t depth_;
  std::vector<Lane> lanes_;
  std::vector<Buffer> incoming_;  // one per lane and place in flight
  Buffer body_{spec_.size};
  Buffer last_{spec_.size};
  std::uint64_t posted_ = 0;
  std::size_t sending_ = 0;
  std::size_t receiving_ = 0;
  Nanos send_until_ = 0;
  BandwidthResult result_;
  Window window_;
  FenceOnError guard_{connection_};
};

}  // namespace

BandwidthResult measure_bandwidth(Connection& connection, const BandwidthSpec& spec,
                                  const Watch& watch) {
  const auto valid = [](bool holds, const char* what) {
    if (!holds) throw Error(Fault::kInvalid, what);
  };
  valid(spec.size >= 1, "size");
  valid(spec.sends || spec.receives, "direction");
  valid(spec.duration > 0 || spec.messages > 0, "duration and messages");
  valid(spec.duration >= 0 && spec.warmup >= 0 && spec.interval > 0, "duration");
  return Run(connection, spec, watch).go();
}

}  // namespace cwai

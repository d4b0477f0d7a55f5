#include "probe/latency.hpp"

#include <algorithm>
#include <utility>

#include "probe/run.hpp"
#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::uint64_t kProtocol = 0x4C410001;  // "LA", version 1

class Run {
 public:
  Run(Connection& connection, const LatencySpec& spec, const Watch& watch)
      : connection_(connection), spec_(spec), watch_(watch), progress_("latency", spec.size) {}

  LatencyResult go() {
    connection_.prepare(Goal::kLatency);
    agree();
    body_.data()[0] = kMore;
    last_.data()[0] = kLast;
    progress_.phase(Phase::kTimed);
    LatencyResult result;
    if (spec_.initiates)
      result.samples = ask();
    else
      answer();
    if (spec_.verify) {
      progress_.phase(Phase::kVerify);
      const Mismatch found = verify(connection_, spec_.size, true, true, spec_.seed, watch_);
      result.wrong = found.wrong;
      result.first_bad = found.first_bad;
    }
    progress_.phase(Phase::kClose);
    swap_words(connection_, {kProtocol}, watch_);
    return result;
  }

 private:
  void agree() {
    progress_.phase(Phase::kAgree);
    const Words theirs = swap_words(
        connection_,
        {kProtocol, spec_.size, spec_.initiates ? 1U : 0U, spec_.iterations,
         static_cast<std::uint64_t>(spec_.duration), spec_.warmup, spec_.verify ? 1U : 0U, 0},
        watch_);
    expect_agreement(theirs[0] == kProtocol, "kind of run");
    expect_agreement(theirs[1] == spec_.size, "size");
    expect_agreement(theirs[2] == (spec_.initiates ? 0U : 1U), "who initiates");
    expect_agreement(theirs[3] == spec_.iterations, "iterations");
    expect_agreement(theirs[4] == static_cast<std::uint64_t>(spec_.duration), "duration");
    expect_agreement(theirs[5] == spec_.warmup, "warm-up");
    expect_agreement((theirs[6] == 1U) == spec_.verify, "verification");
  }

  void send(const Buffer& message) {
    connection_.post_send(0, {message.data(), spec_.size}, 0);
    ++sending_;
  }

  // Waits for the next arrival; sends that complete meanwhile are counted off.
  Nanos await_receive() {
    for (;;) {
      const Completion completion = complete(connection_, watch_);
      if (completion.direction == Direction::kReceive) return completion.time;
      --sending_;
    }
  }

  void drain() {
    for (; sending_ > 0; --sending_) complete(connection_, watch_);
  }

  Nanos round_trip(const Buffer& message) {
    connection_.post_receive(0, {incoming_.data(), spec_.size}, 0);
    const Nanos start = now();
    send(message);
    return await_receive() - start;
  }

  std::vector<double> ask() {
    std::vector<double> samples;
    samples.reserve(spec_.iterations);
    for (std::uint64_t i = 0; i < spec_.warmup; ++i) round_trip(body_);
    Nanos next_look = now();
    const Nanos end = spec_.duration > 0 ? next_look + spec_.duration : watch_.deadline();
    constexpr std::uint64_t kStride =
        16;  // round trips between two looks at the clock and the flag
    for (std::uint64_t i = 0; i < spec_.iterations; ++i) {
      if (i % kStride == 0) {
        const Nanos at = now();
        if (spec_.duration > 0 && at >= end && i > 0) break;
        if (at >= next_look) {
          watch_.check(at);
          next_look = at + kSlice;
        }
        progress_.iteration(i);
      }
      samples.push_back(seconds(round_trip(body_)));
    }
    round_trip(last_);
    drain();
    return samples;
  }

  // The next receive is posted before the reply goes out, so that the next question finds its
  // place. Two buffers in turn: the one that just arrived is looked at while the other may be
  // written.
  void answer() {
    Buffer* current = &incoming_;
    Buffer* next = &other_;
    connection_.post_receive(0, {current->data(), spec_.size}, 0);
    for (std::uint64_t i = 0;; ++i) {
      await_receive();
      if (current->data()[0] == kLast) break;
      connection_.post_receive(0, {next->data(), spec_.size}, 0);
      send(body_);
      std::swap(current, next);
      if (i % 1024 == 0) watch_.check();
    }
    send(last_);
    drain();
  }

  Connection& connection_;
  const LatencySpec& spec_;
  const Watch& watch_;
  ProgressOwner progress_;
  std::size_t sending_ = 0;
  Buffer body_{spec_.size};
  Buffer last_{spec_.size};
  Buffer incoming_{spec_.size};
  Buffer other_{spec_.size};
  FenceOnError guard_{connection_};
};

}  // namespace

LatencyResult measure_latency(Connection& connection, const LatencySpec& spec, const Watch& watch) {
  if (spec.size < 1) throw Error(Fault::kInvalid, "size");
  constexpr std::uint64_t kMostSamples = 100'000'000;
  if (spec.iterations < 1 || spec.iterations > kMostSamples)
    throw Error(Fault::kInvalid, "iterations");
  if (spec.duration < 0) throw Error(Fault::kInvalid, "duration");
  return Run(connection, spec, watch).go();
}

}  // namespace cwai

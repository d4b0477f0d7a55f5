// The counted part of a bandwidth run: from the end of the warm-up until time is over.
#pragma once

#include <cstdint>
#include <vector>

#include "support/clock.hpp"

namespace cwai {

struct WindowSpec {
  Nanos duration = kSecond;    ///< Of the counted part; 0: until ``messages``.
  std::uint64_t messages = 0;  ///< Counted messages, all lanes together; 0: until ``duration``.
  Nanos warmup = 0;            ///< Not counted, from the first message on.
  std::uint64_t warmup_messages = 0;  ///< Not counted; the count starts when both are over.
  Nanos interval = 50'000'000;        ///< Of one sample.
};

struct WindowCount {
  std::vector<double> samples;  ///< Bytes per second, one per interval.
  std::uint64_t bytes = 0;
  std::uint64_t messages = 0;
  Nanos elapsed = 0;
  std::uint64_t warmup_messages = 0;
};

class Window {
 public:
  explicit Window(const WindowSpec& spec) : spec_(spec) {}

  /// ``messages`` of ``bytes`` in all have been seen to complete at ``at``. ``ready``: the window
  /// may open.
  void add(Nanos at, std::uint64_t messages, std::uint64_t bytes, bool ready = true) {
    if (closed_) return;
    if (first_ == 0) first_ = at;
    if (opened_ == 0) {
      // The messages that open the window are not in it: their bytes moved before.
      count_.warmup_messages += messages;
      if (!ready || at - first_ < spec_.warmup || count_.warmup_messages <= spec_.warmup_messages)
        return;
      opened_ = sampled_ = at;
      return;
    }
    count_.bytes += bytes;
    count_.messages += messages;
    count_.elapsed = at - opened_;
    since_sample_ += bytes;
    if (at - sampled_ >= spec_.interval) sample(at);
    const bool late = spec_.duration > 0 && count_.elapsed >= spec_.duration;
    if (late || (spec_.messages > 0 && count_.messages >= spec_.messages)) close();
  }

  void close() {
    if (closed_) return;
    closed_ = true;
    // What is left counts as a sample when it is long enough to be one, or when there is no other.
    const Nanos end = opened_ + count_.elapsed;
    const bool alone = count_.samples.empty();
    if (since_sample_ > 0 && end > sampled_ && (alone || end - sampled_ >= spec_.interval / 2))
      sample(end);
  }

  bool open() const noexcept { return opened_ != 0; }
  bool closed() const noexcept { return closed_; }
  const WindowCount& count() const noexcept { return count_; }

 private:
  void sample(Nanos at) {
    count_.samples.push_back(static_cast<double>(since_sample_) / seconds(at - sampled_));
    sampled_ = at;
    since_sample_ = 0;
  }

  WindowSpec spec_;
  WindowCount count_;
  Nanos first_ = 0;
  Nanos opened_ = 0;
  Nanos sampled_ = 0;
  std::uint64_t since_sample_ = 0;
  bool closed_ = false;
};

}  // namespace cwai

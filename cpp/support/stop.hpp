// The stop flag of the process, and the deadline of a run: every loop that waits looks at both.
#pragma once

#include <algorithm>
#include <atomic>

#include "support/clock.hpp"

namespace cwai {

/// Asks every run of this process to end. Safe in a signal handler and from any thread; it stays
/// set.
void request_stop() noexcept;
void clear_stop() noexcept;
bool stop_requested() noexcept;

class Watch {
 public:
  /// A deadline ``timeout`` nanoseconds from now, for as long as nobody sets ``given_up``.
  explicit Watch(Nanos timeout, const std::atomic<bool>* given_up = nullptr) noexcept
      : deadline_(now() + timeout), given_up_(given_up) {}

  Nanos deadline() const noexcept { return deadline_; }

  /// The same, over ``timeout`` nanoseconds from now if not before.
  Watch within(Nanos timeout) const noexcept {
    Watch shorter = *this;
    shorter.deadline_ = std::min(deadline_, now() + timeout);
    return shorter;
  }

  /// Until when one sleep may last: the next look at the flag, or the deadline.
  Nanos slice_end() const noexcept { return std::min(deadline_, now() + kSlice); }

  /// Throws Error: kStopped when the flag is set or it was given up, kDeadline when time is over.
  void check() const { check(now()); }
  void check(Nanos at) const;

 private:
  Nanos deadline_;
  const std::atomic<bool>* given_up_;
};

}  // namespace cwai

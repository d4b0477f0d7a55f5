// The one clock of the native core: CLOCK_MONOTONIC in nanoseconds.
#pragma once

#include <cstdint>
#include <ctime>
#include <limits>

namespace cwai {

using Nanos = std::int64_t;

constexpr Nanos kSecond = 1'000'000'000;
constexpr Nanos kNever = std::numeric_limits<Nanos>::max();

/// The longest time for which anything sleeps before it looks at the stop flag and its deadline.
constexpr Nanos kSlice = 50'000'000;

inline Nanos now() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

constexpr Nanos nanos(double seconds) noexcept {
  return static_cast<Nanos>(seconds * static_cast<double>(kSecond));
}

constexpr double seconds(Nanos t) noexcept {
  return static_cast<double>(t) / static_cast<double>(kSecond);
}

struct ClockQuality {
  Nanos resolution;  ///< Smallest step seen between two readings that differ.
  double overhead;   ///< Nanoseconds that one reading takes, on average.
};

/// Measured here and now; takes less than a millisecond.
ClockQuality measure_clock() noexcept;

}  // namespace cwai

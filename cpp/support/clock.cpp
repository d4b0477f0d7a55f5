#include "support/clock.hpp"

#include <algorithm>
#include <limits>

namespace cwai {

ClockQuality measure_clock() noexcept {
  constexpr int kReadings = 5000;
  Nanos step = std::numeric_limits<Nanos>::max();
  const Nanos first = now();
  Nanos before = first;
  for (int i = 0; i < kReadings; ++i) {
    const Nanos t = now();
    if (t != before) step = std::min(step, t - before);
    before = t;
  }
  return {.resolution = step, .overhead = static_cast<double>(before - first) / kReadings};
}

}  // namespace cwai

#include "collective/meeting.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "support/clock.hpp"
#include "support/crc32c.hpp"

namespace cwai {
namespace {

constexpr int kTrips = 16, kMostTrips = 512;
// A trip that takes no longer was held up by nobody.
constexpr double kShort = 50e-6;

// Both send when they are ready to; what each saw is exchanged after it. The same for both ends.
ClockOffset compared(Meeting& meeting, int with, double kernel) {
  const double theirs = meeting.exchange(kernel, with);
  if (kernel != 0 && kernel == theirs) return {};
  ClockOffset best{0, std::numeric_limits<double>::max()};
  for (int i = 1; i <= kMostTrips; ++i) {
    meeting.exchange(0, with);  // so that both begin together
    const Nanos sent = now();
    const double other_sent = meeting.exchange(seconds(sent), with);
    const double saw = seconds(now());
    const double other_saw = meeting.exchange(saw, with);
    // What a message took, by two clocks: there and back.
    const double back = saw - other_sent, there = other_saw - seconds(sent);
    const double trip = std::max(back + there, 0.0);
    if (trip / 2 < best.uncertainty) best = {(there - back) / 2, trip / 2};
    // Both must come to the same, whatever rounding did to one of them.
    const double more = best.uncertainty > kShort ? 1 : 0;
    if (i >= kTrips && std::max(more, meeting.exchange(more, with)) == 0) break;
  }
  return best;
}

}  // namespace

double this_kernel() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return crc32c(id.data(), id.size());
}

ClockOffset clock_offset(Meeting& meeting, double kernel) {
  if (meeting.size() == 1) return {};
  if (meeting.rank() > 0) return compared(meeting, 0, kernel);
  for (int other = 1; other < meeting.size(); ++other) compared(meeting, other, kernel);
  return {};
}

}  // namespace cwai

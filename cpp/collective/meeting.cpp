#include "collective/meeting.hpp"

#include <algorithm>
#include <limits>

#include "support/clock.hpp"

namespace cwai {
namespace {

constexpr int kTrips = 16;

// Both send when they are ready to; what each saw is exchanged after it. The same for both ends.
ClockOffset compared(Meeting& meeting, int with) {
  ClockOffset best{0, std::numeric_limits<double>::max()};
  for (int i = 0; i < kTrips; ++i) {
    meeting.swap(0, with);  // so that both begin together
    const Nanos sent = now();
    const double other_sent = meeting.swap(seconds(sent), with);
    const double saw = seconds(now());
    const double other_saw = meeting.swap(saw, with);
    // What a message took, by two clocks: there and back.
    const double here = saw - other_sent, there = other_saw - seconds(sent);
    const double trip = std::max(here + there, 0.0);
    if (trip / 2 < best.uncertainty) best = {(there - here) / 2, trip / 2};
  }
  return best;
}

}  // namespace

ClockOffset clock_offset(Meeting& meeting) {
  if (meeting.size() == 1) return {};
  if (meeting.rank() > 0) return compared(meeting, 0);
  for (int other = 1; other < meeting.size(); ++other) compared(meeting, other);
  return {};
}

}  // namespace cwai

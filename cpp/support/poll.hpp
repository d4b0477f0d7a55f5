// The wait for a card: nobody wakes us up, so it is asked again and again.
#pragma once

#include <functional>

#include "support/stop.hpp"

namespace cwai {

/// What is waited for besides. ``look`` is called about every millisecond, and may throw. ``what``
/// names it in the error. ``grace``: how long it may go on by itself once all was told to stop.
struct Waiting {
  std::function<void()> look = [] {};
  const char* what = "";
  Nanos grace = 0;
};

/// Asks ``done`` again and again, so that what is short is seen at once; after the first
/// millisecond others may have the CPU in between. Throws Error: kDeadline and kStopped.
void poll_until(const std::function<bool()>& done, const Watch& watch, const Waiting& waiting = {});

}  // namespace cwai

#include "support/poll.hpp"

#include <sched.h>

#include "support/error.hpp"

namespace cwai {

void poll_until(const std::function<bool()>& done, const Watch& watch, const Waiting& waiting) {
  constexpr Nanos kAlone = 1'000'000;
  constexpr int kBetweenClocks = 64;  // a query takes some 0.5 us
  const Nanos start = now();
  Nanos looked = start;
  Nanos stopping = 0;
  while (true) {
    for (int i = 0; i < kBetweenClocks; ++i) {
      if (done()) return;
      if (looked > start) sched_yield();
    }
    const Nanos at = now();
    if (at - looked < kAlone) continue;
    looked = at;
    waiting.look();
    if (at >= watch.deadline()) throw Error(Fault::kDeadline, waiting.what);
    if (!stop_requested()) continue;
    if (stopping == 0) stopping = at;
    if (at - stopping >= waiting.grace) throw Error(Fault::kStopped, waiting.what);
  }
}

}  // namespace cwai

// How the processes of a library of cards start and end together, though the library itself waits
// within calls that nobody can stop.
#pragma once

#include <functional>
#include <string>

#include "collective/meeting.hpp"
#include "support/clock.hpp"

namespace cwai {

/// Does ``work`` in a thread that can be left behind. ``look`` is called with the time now and
/// then; what it throws leaves the thread. ``work`` must own all that it touches. Throws what
/// ``work`` throws.
void aside(std::function<void()> work, const std::function<void(Nanos)>& look);

/// Every process does ``mine``. Where one of them fails none goes on to wait for it: it throws what
/// went wrong, the others Error(kCollective) with the library's name.
void together(Meeting& meeting, const std::string& library, const std::function<void()>& mine);

/// The ranks of the cards of this process, those of process 0 first: ``first`` is the first of
/// ``mine`` cards, of ``size`` in all. Collective.
struct Ranks {
  int first, size;
};
Ranks ranks_of(Meeting& meeting, std::size_t mine);

}  // namespace cwai

#include "multipath/health.hpp"

#include <algorithm>

namespace cwai::multipath {

const char* path_state_name(PathState state) noexcept {
  switch (state) {
    case PathState::kHealthy:
      return "healthy";
    case PathState::kSuspect:
      return "suspect";
    case PathState::kFailed:
      return "failed";
    case PathState::kProbing:
      return "probing";
    case PathState::kProbation:
      return "probation";
  }
  return "unknown";
}

void PathHealth::become(PathState state, Nanos at) noexcept {
  state_ = state;
  since_ = at;
}

double PathHealth::share() const noexcept {
  switch (state_) {
    case PathState::kFailed:
    case PathState::kProbing:
      return 0;
    case PathState::kProbation:
      return spec_.probation;
    default:
      return 1;
  }
}

void PathHealth::stall(Nanos at) noexcept {
  if (state_ == PathState::kHealthy || state_ == PathState::kProbation)
    become(PathState::kSuspect, at);
}

void PathHealth::deliver(Nanos at) noexcept {
  if (state_ == PathState::kSuspect) become(PathState::kHealthy, at);
  if (state_ != PathState::kProbation || ++delivered_ < spec_.runs) return;
  become(PathState::kHealthy, at);
  pause_ = spec_.first_pause;
}

void PathHealth::fail(Nanos at) noexcept {
  // A dial that fails comes here too, and the next one is later.
  if (state_ != PathState::kFailed) ++failures_;
  become(PathState::kFailed, at);
  retry_ = at + pause_;
  pause_ = std::min(2 * pause_, spec_.longest_pause);
}

void PathHealth::dialling() noexcept { retry_ = kNever; }

void PathHealth::connect(Nanos at) noexcept {
  answered_ = delivered_ = 0;
  become(PathState::kProbing, at);
}

void PathHealth::answer(Nanos at) noexcept {
  if (state_ == PathState::kProbing && ++answered_ >= spec_.probes)
    become(PathState::kProbation, at);
}

bool PathHealth::overdue(Nanos at) const noexcept {
  return (state_ == PathState::kSuspect || state_ == PathState::kProbing) &&
         at - since_ >= spec_.patience;
}

Nanos PathHealth::due() const noexcept {
  switch (state_) {
    case PathState::kFailed:
      return retry_;
    case PathState::kSuspect:
    case PathState::kProbing:
      return since_ + spec_.patience;
    default:
      return kNever;
  }
}

}  // namespace cwai::multipath

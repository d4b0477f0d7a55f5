#include "support/progress.hpp"

#include <array>
#include <atomic>

namespace cwai {
namespace {

// Four relaxed atomics: a reader may see the size of one run with the phase of the next. That is
// good enough for a heartbeat, and costs the timed loop one plain store.
std::atomic<bool> owned{false};
std::atomic<Phase> current_phase{Phase::kIdle};
std::atomic<const char*> current_what{""};
std::atomic<std::uint64_t> current_size{0};
std::atomic<std::uint64_t> current_iteration{0};

constexpr std::array<const char*, 7> kPhaseNames = {"idle",  "connect", "agree", "warmup",
                                                    "timed", "verify",  "close"};

}  // namespace

const char* phase_name(Phase phase) noexcept {
  return kPhaseNames[static_cast<std::size_t>(phase)];
}

ProgressView progress() noexcept {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  return {current_phase.load(kRelaxed), current_what.load(kRelaxed), current_size.load(kRelaxed),
          current_iteration.load(kRelaxed)};
}

ProgressOwner::ProgressOwner(const char* what, std::uint64_t size) noexcept
    : shown_(!owned.exchange(true)) {
  if (!shown_) return;
  current_what.store(what, std::memory_order_relaxed);
  current_size.store(size, std::memory_order_relaxed);
  current_iteration.store(0, std::memory_order_relaxed);
}

ProgressOwner::~ProgressOwner() {
  if (!shown_) return;
  phase(Phase::kIdle);
  owned.store(false);
}

void ProgressOwner::phase(Phase phase) noexcept {
  if (shown_) current_phase.store(phase, std::memory_order_relaxed);
}

void ProgressOwner::iteration(std::uint64_t iteration) noexcept {
  if (shown_) current_iteration.store(iteration, std::memory_order_relaxed);
}

}  // namespace cwai

#include "support/stop.hpp"

#include <atomic>

#include "support/error.hpp"

namespace cwai {
namespace {
std::atomic<bool> stop_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");
}  // namespace

void request_stop() noexcept { stop_flag.store(true, std::memory_order_relaxed); }
void clear_stop() noexcept { stop_flag.store(false, std::memory_order_relaxed); }
bool stop_requested() noexcept { return stop_flag.load(std::memory_order_relaxed); }

void Watch::check(Nanos at) const {
  if (stop_requested() || (given_up_ != nullptr && given_up_->load()))
    throw Error(Fault::kStopped, "");
  if (at >= deadline_) throw Error(Fault::kDeadline, "");
}

}  // namespace cwai

// How far the run of this process has got, readable from any thread while it goes on.
#pragma once

#include <cstdint>

namespace cwai {

enum class Phase : std::uint8_t { kIdle, kConnect, kAgree, kWarmup, kTimed, kVerify, kClose };

const char* phase_name(Phase phase) noexcept;

struct ProgressView {
  Phase phase;
  const char* what;  ///< The operation: ``bandwidth``, ``latency``, ``all_reduce`` …
  std::uint64_t size;
  std::uint64_t iteration;
};

ProgressView progress() noexcept;

/// Held by a run while it goes on. Of two runs in one process (both ends of a loopback) the first
/// to come is shown; the other one's updates go nowhere.
class ProgressOwner {
 public:
  /// ``what`` must be a string literal.
  ProgressOwner(const char* what, std::uint64_t size) noexcept;
  ~ProgressOwner();
  ProgressOwner(const ProgressOwner&) = delete;
  ProgressOwner& operator=(const ProgressOwner&) = delete;

  void phase(Phase phase) noexcept;
  void iteration(std::uint64_t iteration) noexcept;

 private:
  bool shown_;
};

}  // namespace cwai

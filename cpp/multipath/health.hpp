// The state of one path, and when it is tried again. Pure: the time comes with each call.
//
//   healthy ──silent──► suspect ──still silent, or an error──► failed ──connected again──► probing
//      ▲                  │ it delivers                           ▲ an error, at any time      │
//      └──────────────────┘◄──────── probation ◄──────────────────┴──── probes were answered ──┘
//
// A path that failed is tried again for ever, at growing distances: the fabric may be repaired
// hours later, and a path given up is one less until the job ends.
#pragma once

#include <cstdint>

#include "support/clock.hpp"

namespace cwai::multipath {

enum class PathState : std::uint8_t { kHealthy, kSuspect, kFailed, kProbing, kProbation };

const char* path_state_name(PathState state) noexcept;

struct HealthSpec {
  Nanos patience = kSecond;             ///< A suspect that is silent for so long has failed.
  Nanos first_pause = 100'000'000;      ///< Before a failed path is tried again; doubled each time,
  Nanos longest_pause = 300 * kSecond;  ///< up to this.
  std::uint32_t probes = 3;             ///< To be answered before it is trusted with data again,
  std::uint32_t runs = 8;               ///< and to be delivered before it is healthy.
  double probation = 0.25;              ///< Its share of the window until then.
};

class PathHealth {
 public:
  explicit PathHealth(const HealthSpec& spec) noexcept : spec_(spec), pause_(spec.first_pause) {}

  PathState state() const noexcept { return state_; }
  /// Share of its window that a path may use: 0 carries no data.
  double share() const noexcept;

  void stall(Nanos at) noexcept;
  /// It delivered a run.
  void deliver(Nanos at) noexcept;
  void fail(Nanos at) noexcept;
  /// It is connected again.
  void connect(Nanos at) noexcept;
  /// A probe was answered.
  void answer(Nanos at) noexcept;

  /// A failed path should be dialled now.
  bool dial(Nanos at) const noexcept { return state_ == PathState::kFailed && at >= retry_; }
  /// Nobody dials for it until fail() or connect().
  void dialling() noexcept;
  /// A suspect, or a probe, was silent for too long: fail() should be called.
  bool overdue(Nanos at) const noexcept;
  /// When dial() or overdue() may next turn true.
  Nanos due() const noexcept;
  Nanos since() const noexcept { return since_; }
  std::uint32_t failures() const noexcept { return failures_; }

 private:
  void become(PathState state, Nanos at) noexcept;

  HealthSpec spec_;
  PathState state_ = PathState::kHealthy;
  Nanos since_ = 0;
  Nanos pause_;
  Nanos retry_ = 0;
  std::uint32_t answered_ = 0;
  std::uint32_t delivered_ = 0;
  std::uint32_t failures_ = 0;
};

}  // namespace cwai::multipath

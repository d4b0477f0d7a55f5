// How far both ends of a run are, as they tell one another over the connection on which they met.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "probe/run.hpp"
#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

/// Milestones are numbered from 1 to ``last``, and reached in that order; each is told by one byte
/// on lane 0.
class Milestones {
 public:
  static constexpr std::uint8_t kMost = 7;

  Milestones(Connection& control, std::uint8_t last) noexcept : control_(control), last_(last) {}

  /// From now on the other end is heard; nothing else may be received on lane 0 before finish().
  void begin();
  void reach(std::uint8_t milestone);

  std::uint8_t mine() const noexcept { return mine_; }
  std::uint8_t peer() const noexcept { return peer_; }

  /// Takes what the other end has told; ``wait``: for as long as one sleep may last. Throws Error:
  /// kGarbled, kPeerClosed, kTransfer, kStopped.
  void listen(bool wait, const Watch& watch);

  /// Waits for the other end's last one, and until this end's have been told. Throws as listen(),
  /// and kDeadline.
  void finish(const Watch& watch);

 private:
  Connection& control_;
  std::uint8_t last_;
  std::uint8_t mine_ = 0;
  std::uint8_t peer_ = 0;
  int telling_ = 0;  // not known to have been sent
  std::array<std::byte, kMost> told_{};
  std::array<std::byte, 1> heard_{};
  FenceOnError guard_{control_};  // after what the other end writes into
};

}  // namespace cwai

// Bandwidth over any transport: one thread keeps all lanes busy, the receiving end counts.
#pragma once

#include <cstdint>

#include "probe/window.hpp"
#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

/// Both ends are given the same, but for ``sends`` and ``receives``: what one sends the other
/// receives.
struct BandwidthSpec : WindowSpec {
  std::size_t size = 65536;  ///< Bytes of a message, at least 1.
  bool sends = false;
  bool receives = false;
  bool verify = true;  ///< One pass of seeded data afterwards, outside the timed part.
  std::uint64_t seed = 0;
};

/// All of it is what *this* end received, on its own clock. In two-way runs only what came while
/// this end was sending as well is counted.
struct BandwidthResult : WindowCount {
  std::uint64_t wrong = 0;  ///< Bytes of the verification pass that differ.
  std::int64_t first_bad = -1;
  std::uint64_t peer_bytes = 0;  ///< What the other end received, as it said on parting.
  Nanos peer_elapsed = 0;
};

/// Throws Error: kInvalid, kDisagreed, kPeerClosed, kTransfer, kGarbled, kDeadline, kStopped.
BandwidthResult measure_bandwidth(Connection& connection, const BandwidthSpec& spec,
                                  const Watch& watch);

}  // namespace cwai

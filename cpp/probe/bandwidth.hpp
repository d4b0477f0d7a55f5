// Bandwidth over any transport: one thread keeps all lanes busy, the receiving end counts.
#pragma once

#include <cstdint>
#include <vector>

#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

/// Both ends are given the same, but for ``sends`` and ``receives``: what one sends the other
/// receives.
struct BandwidthSpec {
  std::size_t size = 65536;  ///< Bytes of a message, at least 1.
  bool sends = false;
  bool receives = false;
  Nanos duration = kSecond;    ///< Of the counted part; 0: until ``messages``.
  std::uint64_t messages = 0;  ///< Counted messages, all lanes together; 0: until ``duration``.
  Nanos warmup = 0;            ///< Not counted, from the first message on.
  std::uint64_t warmup_messages = 0;  ///< Not counted; the count starts when both are over.
  Nanos interval = 50'000'000;        ///< Of one sample.
  bool verify = true;  ///< One pass of seeded data afterwards, outside the timed part.
  std::uint64_t seed = 0;
};

/// All of it is what *this* end received, on its own clock. In two-way runs only what came while
/// this end was sending as well is counted.
struct BandwidthResult {
  std::vector<double> samples;  ///< Bytes per second, one per interval.
  std::uint64_t bytes = 0;
  std::uint64_t messages = 0;
  Nanos elapsed = 0;
  std::uint64_t warmup_messages = 0;
  std::uint64_t wrong = 0;  ///< Bytes of the verification pass that differ.
  std::int64_t first_bad = -1;
  std::uint64_t peer_bytes = 0;  ///< What the other end received, as it said on parting.
  Nanos peer_elapsed = 0;
};

/// Throws Error: kInvalid, kDisagreed, kPeerClosed, kTransfer, kGarbled, kDeadline, kStopped.
BandwidthResult measure_bandwidth(Connection& connection, const BandwidthSpec& spec,
                                  const Watch& watch);

}  // namespace cwai

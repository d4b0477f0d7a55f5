// Latency over any transport: full round trips on lane 0, each one kept.
#pragma once

#include <cstdint>
#include <vector>

#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

/// Both ends are given the same, but for ``initiates``, which is true on one of them.
struct LatencySpec {
  std::size_t size = 64;  ///< Bytes of a message each way, at least 1.
  bool initiates = false;
  std::uint64_t iterations = 2000;  ///< At most; the counted ones.
  Nanos duration = 0;               ///< Ends the counted part earlier; 0: never.
  std::uint64_t warmup = 100;       ///< Round trips before the counted ones.
  bool verify = true;
  std::uint64_t seed = 0;
};

struct LatencyResult {
  std::vector<double>
      samples;  ///< Seconds of a round trip, there and back. Empty on the end that answers.
  std::uint64_t wrong = 0;  ///< Bytes of the verification pass that differ, on this end.
  std::int64_t first_bad = -1;
};

/// Throws Error: kInvalid, kDisagreed, kPeerClosed, kTransfer, kGarbled, kDeadline, kStopped.
LatencyResult measure_latency(Connection& connection, const LatencySpec& spec, const Watch& watch);

}  // namespace cwai

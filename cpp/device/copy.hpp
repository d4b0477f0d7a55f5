// Copies of a GPU: within its memory, between it and the host, and between two GPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/timing.hpp"
#include "support/pattern.hpp"

namespace cwai {

struct CopySpec {
  std::size_t bytes;  ///< Of one copy; a multiple of 16.
  TimingSpec timing;
  std::uint64_t seed;
};

struct CopyResult {
  /// Bytes per second that arrived; where it goes both ways at once, in each of them.
  std::vector<double> samples;
  /// What is wrong at the target afterwards, in words of 8 bytes.
  Mismatch found;
};

/// Within the GPU's memory, cut into ``streams`` parts that are copied at once. Each byte is read
/// and written: the memory moves twice what the samples tell.
CopyResult measure_card_copy(const Gpu& gpu, int streams, const CopySpec& spec, const Watch& watch);

enum class Direction : std::uint8_t { kThere, kBack, kBoth };

/// Between page-locked memory of the host, near the CPU that this thread runs on, and the GPU:
/// kThere is to the GPU.
CopyResult measure_host_copy(const Gpu& gpu, Direction direction, const CopySpec& spec,
                             const Watch& watch);

struct PeerResult : CopyResult {
  bool direct;  ///< Without the host between them.
};

/// From one GPU to another (kThere), or both ways at once; kBack is kThere the other way round, and
/// refused.
PeerResult measure_peer_copy(const Gpu& source, const Gpu& target, Direction direction,
                             const CopySpec& spec, const Watch& watch);

}  // namespace cwai

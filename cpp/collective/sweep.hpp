// One point of a sweep: an operation at one size, verified, warmed up, timed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collective/backend.hpp"
#include "support/buffer.hpp"
#include "support/clock.hpp"
#include "support/stop.hpp"

namespace cwai {

struct PointSpec {
  Operation operation;
  Element element;
  std::size_t bytes;         ///< Wanted size; see PointResult::bytes.
  std::uint64_t iterations;  ///< 0: as many as fit into ``limit``, between the two bounds below.
  std::uint64_t least, most;
  Nanos limit;
  std::uint64_t warmup;
  bool verify;
  std::uint64_t seed;
};

/// ``bytes`` is what nccl-tests calls the size: of the whole message, for all_gather,
/// reduce_scatter and alltoall of all ranks' blocks; a multiple of the blocks, so it can differ
/// from what was wanted.
struct PointResult {
  std::size_t bytes;
  std::size_t count;
  std::vector<double> samples;  ///< Seconds of each iteration on this rank.
  std::uint64_t warmup;
  std::uint64_t wrong;
  std::int64_t first_bad;
};

/// Holds the buffers, made once for the largest size: pages handed out one growth after another lie
/// elsewhere each time, which alone was worth 4 % at 1 MiB.
class Sweep {
 public:
  /// ``largest``: the most bytes that a point will ask for.
  Sweep(CollectiveBackend& backend, std::size_t largest);

  /// Every rank calls it with the same spec. Each iteration is: barrier, clock, operation, clock:
  /// it is the time from this rank's leaving the barrier to the completion of its own part.
  /// The stop flag or the deadline of one rank ends it on all of them, within a quarter of a second
  /// of the library's answering. An operation that never ends cannot be left: that is for the
  /// keeper to see.
  PointResult measure(const PointSpec& spec, const Watch& watch);

  std::span<std::byte> send_buffer() noexcept { return {send_.data(), send_.size()}; }
  std::span<std::byte> receive_buffer() noexcept { return {receive_.data(), receive_.size()}; }

 private:
  double agree(double mine, const Watch& watch);

  CollectiveBackend& backend_;
  Buffer send_, receive_;
};

}  // namespace cwai

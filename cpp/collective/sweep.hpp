// One point of a sweep: an operation at one size, verified, warmed up, timed in two ways.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collective/backend.hpp"
#include "collective/meeting.hpp"
#include "support/clock.hpp"
#include "support/pattern.hpp"
#include "support/progress.hpp"
#include "support/stop.hpp"

namespace cwai {

struct PointSpec {
  Operation operation;
  Element element;
  Reduction reduction;
  int root;
  bool in_place;
  std::size_t bytes;         ///< Wanted size; see PointResult::bytes.
  std::uint64_t iterations;  ///< 0: as many as fit into ``limit``, between the two bounds below.
  std::uint64_t least, most;
  Nanos limit;
  std::uint64_t warmup;
  bool verify;
  std::uint64_t seed;
  bool isolated, pipelined, graph;  ///< Which ways of timing.
  Nanos late;  ///< A rehearsal: this process comes so much later to every isolated iteration.
};

/// ``bytes`` is what nccl-tests calls the size: of the whole message; for all_gather,
/// reduce_scatter, alltoall, gather and scatter of all members' blocks; for alltoallv of the member
/// with the most. It is a multiple of the blocks, so it can differ from what was wanted.
struct PointResult {
  std::size_t bytes = 0;
  std::size_t count = 0;
  std::uint64_t warmup = 0;

  /// What each member of this process found in its receive buffer; empty where it was not asked
  /// for.
  std::vector<Mismatch> found{};

  /// Isolated: barrier, clock, post, complete, clock. By iteration, in seconds: of this process
  /// from leaving the barrier to the completion of its part; of that, until the post returned.
  std::vector<double> times{}, posts{};
  /// By member of this process and iteration: seconds on its card; empty where there is none.
  std::vector<std::vector<double>> device{};
  /// By member and iteration: how much later than the first of all members it came, on the clock of
  /// process 0. To the barrier, and after it into the operation: on a card by when it was queued,
  /// or by the card's shorter time in it, for who comes last waits least.
  std::vector<std::vector<double>> lateness{};

  /// As nccl-tests measures (its ``-z 0``): barrier, clock, all posts, complete, clock; over the
  /// number of operations. 0 where it was not asked for. ``graphed``: the posts as one graph.
  double pipelined = 0, graphed = 0;
  std::uint64_t pipelined_iterations = 0;
};

/// Holds the buffers, made once for the largest size: pages handed out one growth after another lie
/// elsewhere each time, which alone was worth 4 % at 1 MiB.
class Sweep {
 public:
  /// ``largest``: the most bytes that a point will ask for. Collective, as measure() is.
  Sweep(Meeting& meeting, CollectiveBackend& backend, std::size_t largest);

  /// Every process calls it with the same spec (but for ``late``).
  /// The stop flag or the deadline of one process ends it on all of them, within a quarter of a
  /// second of the library's answering. An operation of MPI that never ends cannot be left: that is
  /// for the keeper to see.
  PointResult measure(const PointSpec& spec, const Watch& watch);

  const CollectiveBackend::Buffers& buffers() const noexcept { return buffers_; }
  const ClockOffset& clock() const noexcept { return clock_; }

 private:
  struct Laid;

  double agree(double mine, const Watch& watch);
  Laid lay(const PointSpec& spec, std::size_t count) const;
  std::vector<Mismatch> verify(const PointSpec& spec, const Laid& laid, const Watch& watch);
  void isolated(const PointSpec& spec, const Laid& laid, std::uint64_t iterations,
                std::uint64_t stride, const Watch& watch, ProgressOwner& progress,
                PointResult& result);
  void compare_arrivals(const std::vector<double>& ready, const std::vector<double>& entered,
                        const std::vector<double>& posted, PointResult& result);

  Meeting& meeting_;
  CollectiveBackend& backend_;
  std::size_t capacity_;
  const CollectiveBackend::Buffers& buffers_;
  ClockOffset clock_;
};

}  // namespace cwai

// Which path sends what next. Pure: no I/O and no clock of its own; the time comes with each call,
// so that tests replay years of faults in a second.
//
// A transfer is a row of blocks. A path asks for work when it has room, and gets a run: blocks in a
// row, sent as one message. What is delivered is told block by block, so a run that is lost may be
// sent again in other pieces.
//
// The policy of ours (kPull) gives work to who asks. That no path is ever idle while there is work
// gives S/R seconds for S bytes over paths of R bytes per second in all; what is added to that is
// the time that the slowest path needs for what it holds when the others are done. So a path holds
// no more than it delivers in ``horizon`` (a window in time, not in bytes), and at the end a path
// that is idle takes over the last run of the one that will be last (``steal``). How fast a path is
// is the rate at which it delivers, and while it is silent never more than what it owes over the
// time that it has been silent: an average that only deliveries move is blind to a path that stops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "support/clock.hpp"

namespace cwai::multipath {

/// How work is divided. All of them send again what a path lost; only kPull looks at how fast a
/// path is.
enum class Policy : std::uint8_t {
  kSingle,      ///< Everything over the first path that is usable.
  kRoundRobin,  ///< Run after run, each path in its turn.
  kEqual,       ///< Each path the same share of a transfer, in one piece.
  kWeighted,    ///< As kEqual, shares by ``weights``.
  kPull,        ///< Whoever has room.
};

struct SchedulerSpec {
  Policy policy = Policy::kPull;
  std::size_t block = 64 << 10;    ///< Bytes; the last block of a transfer is what is left.
  std::uint32_t longest_run = 16;  ///< Blocks.
  /// What a path may hold, in time; a path whose answers take longer than half of it holds more.
  Nanos horizon = 20'000'000;
  /// A path that is silent for so long is stalled, if it should have delivered four times over.
  Nanos stall = 100'000'000;
  /// Bytes sent twice at the end of transfers, of all bytes. 0: what only is slow is waited for.
  double duplicates = 0.02;
  std::vector<double> weights = {};
};

/// Blocks ``first`` to ``first + count - 1`` of a transfer.
struct Run {
  std::uint64_t transfer = 0;
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  bool operator==(const Run&) const = default;
};

/// Of one path, since the beginning; bytes.
struct PathCounts {
  std::uint64_t sent = 0;       ///< Given to it.
  std::uint64_t delivered = 0;  ///< Of that, what it delivered first.
  std::uint64_t again = 0;  ///< Of what was given to it, what another path had been given before.
  std::uint64_t lost = 0;   ///< Taken back from it: stalled, failed, or arrived broken.
  std::uint32_t stalls = 0;
};

class Scheduler {
 public:
  /// ``paths`` from 0 on; none is usable before open(). Throws Error(kInvalid).
  Scheduler(SchedulerSpec spec, std::size_t paths);

  /// A transfer of ``bytes``, to be sent after those before it; one of none is one empty block. Its
  /// number: 0, 1, 2 …
  std::uint64_t add(std::size_t bytes);
  /// Whether each of its blocks was delivered.
  bool done(std::uint64_t transfer) const;
  /// Forgets a transfer, whatever is still under way of it.
  void drop(std::uint64_t transfer);
  std::size_t bytes(const Run& run) const;
  /// Bytes of a transfer that were delivered.
  std::size_t delivered(std::uint64_t transfer) const;

  /// The path may be used from now on, with ``share`` of the window that it would have. A path that
  /// was lost begins anew: nothing is known of its rate.
  void open(std::size_t path, double share);
  /// Nothing more comes of what the path holds. It goes to others.
  void lose(std::size_t path);

  /// What ``path`` sends now. None: it has no room, or nothing is left for it.
  std::optional<Run> next(std::size_t path, Nanos at);

  /// ``run``, as next() gave it to ``path``, was delivered. What it gave the same path before and
  /// was not delivered is still under way.
  void deliver(std::size_t path, const Run& run, Nanos at);
  /// ``run`` arrived, and its checksum was wrong: it is sent again.
  void reject(std::size_t path, const Run& run, Nanos at);

  /// Takes back what paths hold that stalled by now; they are given nothing until they deliver.
  void look(Nanos at);
  /// When look() should be called next, if nothing happens before: kNever when nothing is under
  /// way.
  Nanos due() const;

  bool open(std::size_t path) const { return paths_[path].share > 0; }
  bool stalled(std::size_t path) const { return paths_[path].stalled; }
  /// Nothing is under way on it.
  bool idle(std::size_t path) const { return paths_[path].flights.empty(); }
  /// Bytes per second, now; 0 while nothing is known.
  double rate(std::size_t path, Nanos at) const;
  std::size_t held(std::size_t path) const { return paths_[path].held; }
  const PathCounts& counts(std::size_t path) const { return paths_[path].counts; }
  /// When a block that had been taken back from a path was delivered last; 0: none was.
  Nanos recovered() const noexcept { return recovered_; }
  std::size_t paths() const noexcept { return paths_.size(); }

 private:
  struct Range {
    std::uint32_t next, end;
  };
  struct Transfer {
    std::size_t bytes = 0;
    std::uint32_t blocks = 0;
    std::uint32_t fresh = 0;      // the first block that nobody was given
    std::uint32_t delivered = 0;  // blocks
    std::size_t delivered_bytes = 0;
    std::vector<bool> has;
    std::vector<bool> late;     // taken back from a path, some time; empty while none was
    std::vector<Range> shares;  // of policies that divide beforehand
    bool dropped = false;
  };
  struct Flight {
    Run run;
    std::size_t bytes;  // that it weighs
    Nanos posted;
    std::uint32_t only;      // of its blocks the first so many were not taken over by another path
    bool abandoned = false;  // it was taken back; it may arrive all the same
  };
  struct Path {
    std::deque<Flight> flights;
    std::size_t held = 0;  // bytes
    double share = 0;
    bool stalled = false;
    double rate = 0;               // bytes per second
    std::size_t sample_bytes = 0;  // of the sample that is being taken
    Nanos sample_time = 0;
    Nanos quickest = kNever;  // from giving a run to its delivery
    Nanos last = 0;           // when it delivered last
    PathCounts counts;
  };

  Transfer* find(std::uint64_t transfer);
  const Transfer* find(std::uint64_t transfer) const;
  std::size_t block_bytes(const Transfer& transfer, std::uint32_t first, std::uint32_t count) const;
  std::size_t window(const Path& path) const;
  std::uint32_t run_length(const Path& path) const;
  Nanos silence_since(const Path& path) const;
  Nanos stalls_at(const Path& path) const;
  std::optional<Run> returned(std::uint32_t most);
  std::optional<Run> fresh(std::size_t path, std::uint32_t most);
  std::optional<Run> steal(std::size_t path, std::uint32_t most, Nanos at);
  void abandon(Path& path, Flight& flight);
  bool under_way(std::uint64_t transfer, std::uint32_t block) const;
  Run give(Path& path, const Run& run, std::uint32_t only, Nanos at);
  bool my_turn(std::size_t path);

  SchedulerSpec spec_;
  std::vector<Path> paths_;
  std::deque<Transfer> transfers_;
  std::uint64_t first_ = 0;      // the number of transfers_.front()
  std::uint64_t beginning_ = 0;  // before it no transfer has a block that nobody was given
  // Each block that was given out and not delivered is in a flight that is not abandoned, or here.
  std::deque<Run> returned_;
  std::size_t turn_ = 0;
  Nanos recovered_ = 0;
  std::uint64_t all_sent_ = 0, all_stolen_ = 0;
};

}  // namespace cwai::multipath

#include "multipath/scheduler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "support/error.hpp"

namespace cwai::multipath {
namespace {

// A window holds so many runs, so that one is always on its way while another is answered.
constexpr std::uint32_t kRunsInWindow = 4;
constexpr std::size_t kFewestRuns = 2;
// Weight of a new sample of the rate.
constexpr double kNew = 0.25;
// A path takes over a run only if it would deliver it in so much less time.
constexpr double kAhead = 1.25;
// A silent path is stalled when it should have delivered what is next so many times over.
constexpr double kOverdue = 4;
// What policies that know of no rate hold.
constexpr std::uint32_t kFixedRun = 4;
// A run weighs as much as its header, however little it carries: else a path on which nothing but
// empty transfers go would seem to stand still.
constexpr std::size_t kLightest = 64;

}  // namespace

Scheduler::Scheduler(SchedulerSpec spec, std::size_t paths) : spec_(std::move(spec)) {
  if (paths == 0) throw Error(Fault::kInvalid, "paths 0");
  if (spec_.block == 0) throw Error(Fault::kInvalid, "block 0");
  if (spec_.longest_run == 0) throw Error(Fault::kInvalid, "longest_run 0");
  if (spec_.policy == Policy::kWeighted) {
    const bool sound = std::all_of(spec_.weights.begin(), spec_.weights.end(), [](double weight) {
      return weight > 0 && std::isfinite(weight);
    });
    if (spec_.weights.size() != paths || !sound) throw Error(Fault::kInvalid, "weights");
  } else {
    spec_.weights.assign(paths, 1);
  }
  paths_.resize(paths);
}

// -------------------------------------------------------------------------------------- transfers

Scheduler::Transfer* Scheduler::find(std::uint64_t transfer) {
  const std::uint64_t index = transfer - first_;  // of one long gone: huge
  return index < transfers_.size() && !transfers_[index].dropped ? &transfers_[index] : nullptr;
}

const Scheduler::Transfer* Scheduler::find(std::uint64_t transfer) const {
  return const_cast<Scheduler*>(this)->find(transfer);
}

std::uint64_t Scheduler::add(std::size_t bytes) {
  const std::size_t blocks = std::max<std::size_t>((bytes + spec_.block - 1) / spec_.block, 1);
  if (blocks > std::numeric_limits<std::uint32_t>::max())
    throw Error(Fault::kInvalid, "bytes " + std::to_string(bytes));
  Transfer transfer;
  transfer.bytes = bytes;
  transfer.blocks = static_cast<std::uint32_t>(blocks);
  transfer.has.assign(blocks, false);
  if (spec_.policy == Policy::kEqual || spec_.policy == Policy::kWeighted) {
    const double all = std::accumulate(spec_.weights.begin(), spec_.weights.end(), 0.0);
    double so_far = 0;
    std::uint32_t begin = 0;
    for (const double weight : spec_.weights) {
      so_far += weight;
      const auto end = static_cast<std::uint32_t>(
          std::llround(static_cast<double>(blocks) * std::min(so_far / all, 1.0)));
      transfer.shares.push_back({begin, end});
      begin = end;
    }
    transfer.shares.back().end = transfer.blocks;
    transfer.fresh = transfer.blocks;
  }
  transfers_.push_back(std::move(transfer));
  return first_ + transfers_.size() - 1;
}

bool Scheduler::done(std::uint64_t transfer) const {
  const Transfer* found = find(transfer);
  return found == nullptr ? transfer < first_ + transfers_.size()
                          : found->delivered == found->blocks;
}

std::size_t Scheduler::delivered(std::uint64_t transfer) const {
  const Transfer* found = find(transfer);
  return found == nullptr ? 0 : found->delivered_bytes;
}

void Scheduler::drop(std::uint64_t transfer) {
  Transfer* found = find(transfer);
  if (found == nullptr) return;
  *found = {};
  found->dropped = true;
  while (!transfers_.empty() && transfers_.front().dropped) {
    transfers_.pop_front();
    ++first_;
  }
  beginning_ = std::max(beginning_, first_);
}

std::size_t Scheduler::block_bytes(const Transfer& transfer, std::uint32_t first,
                                   std::uint32_t count) const {
  const std::size_t begin = first * spec_.block;
  return std::min(begin + count * spec_.block, transfer.bytes) - begin;
}

std::size_t Scheduler::bytes(const Run& run) const {
  const Transfer* found = find(run.transfer);
  return found == nullptr ? 0 : block_bytes(*found, run.first, run.count);
}

// ------------------------------------------------------------------------------------------ paths

void Scheduler::open(std::size_t path, double share) {
  Path& p = paths_[path];
  p.share = share;
}

void Scheduler::lose(std::size_t path) {
  Path& p = paths_[path];
  for (auto flight = p.flights.rbegin(); flight != p.flights.rend(); ++flight) abandon(p, *flight);
  const PathCounts counts = p.counts;
  p = {};
  p.counts = counts;
}

bool Scheduler::under_way(std::uint64_t transfer, std::uint32_t block) const {
  return std::any_of(paths_.begin(), paths_.end(), [&](const Path& path) {
    return std::any_of(path.flights.begin(), path.flights.end(), [&](const Flight& flight) {
      return !flight.abandoned && flight.run.transfer == transfer &&
             block - flight.run.first < flight.run.count;
    });
  });
}

// Its blocks that nobody else holds go to the front of what is to be sent: they are late already.
// Both may have failed of two paths that held the same block, so it is looked up, not remembered.
void Scheduler::abandon(Path& path, Flight& flight) {
  if (std::exchange(flight.abandoned, true)) return;
  flight.only = 0;
  Transfer* transfer = find(flight.run.transfer);
  if (transfer == nullptr) return;
  for (std::uint32_t block = flight.run.first + flight.run.count; block-- > flight.run.first;) {
    if (transfer->has[block] || under_way(flight.run.transfer, block)) continue;
    path.counts.lost += block_bytes(*transfer, block, 1);
    transfer->late.resize(transfer->blocks);
    transfer->late[block] = true;
    if (!returned_.empty() && returned_.front().transfer == flight.run.transfer &&
        returned_.front().first == block + 1) {
      --returned_.front().first;
      ++returned_.front().count;
    } else {
      returned_.push_front({flight.run.transfer, block, 1});
    }
  }
}

Nanos Scheduler::silence_since(const Path& path) const {
  return std::max(path.last, path.flights.front().posted);
}

double Scheduler::rate(std::size_t path, Nanos at) const {
  const Path& p = paths_[path];
  if (p.flights.empty() || p.rate <= 0) return p.rate;
  const double silent = seconds(at - silence_since(p));
  const auto owed = static_cast<double>(p.flights.front().bytes);
  return silent * p.rate > owed ? owed / silent : p.rate;
}

std::uint32_t Scheduler::run_length(const Path& path) const {
  if (spec_.policy != Policy::kPull) return std::min(kFixedRun, spec_.longest_run);
  const double blocks =
      path.rate * seconds(spec_.horizon) / (kRunsInWindow * static_cast<double>(spec_.block));
  return static_cast<std::uint32_t>(
      std::clamp(blocks, 1.0, static_cast<double>(spec_.longest_run)));
}

std::size_t Scheduler::window(const Path& path) const {
  const std::size_t run = run_length(path) * spec_.block;
  if (spec_.policy != Policy::kPull) return kRunsInWindow * run;
  // Twice what is under way while an answer is awaited: a path that its window held back shows a
  // rate of window per answer, and so gets a larger one until the path itself is what holds it
  // back.
  const Nanos time =
      path.quickest == kNever ? spec_.horizon : std::max(spec_.horizon, 2 * path.quickest);
  const double held = path.share * path.rate * seconds(time);
  return std::max(static_cast<std::size_t>(held), (path.share < 1 ? 1 : kFewestRuns) * run);
}

Nanos Scheduler::stalls_at(const Path& path) const {
  const Nanos since = silence_since(path);
  if (path.rate <= 0) return since + spec_.stall;
  const double drain = static_cast<double>(path.flights.front().bytes) / path.rate;
  return since + std::max(spec_.stall, nanos(std::min(kOverdue * drain, 60.0)));
}

void Scheduler::look(Nanos at) {
  for (Path& path : paths_) {
    if (path.stalled || path.flights.empty() || stalls_at(path) > at) continue;
    path.stalled = true;
    ++path.counts.stalls;
    for (auto flight = path.flights.rbegin(); flight != path.flights.rend(); ++flight)
      abandon(path, *flight);
  }
}

Nanos Scheduler::due() const {
  Nanos due = kNever;
  for (const Path& path : paths_)
    if (!path.stalled && !path.flights.empty()) due = std::min(due, stalls_at(path));
  return due;
}

// ------------------------------------------------------------------------------------------- work

Run Scheduler::give(Path& path, const Run& run, std::uint32_t only, Nanos at) {
  const std::size_t size = bytes(run);
  const std::size_t weight = std::max(size, kLightest);
  path.flights.push_back({run, weight, at, only});
  path.held += weight;
  path.counts.sent += size;
  all_sent_ += size;
  return run;
}

bool Scheduler::my_turn(std::size_t path) {
  // A path that cannot be used now is passed over.
  while (paths_[turn_].share <= 0 || paths_[turn_].stalled) turn_ = (turn_ + 1) % paths_.size();
  return turn_ == path;
}

std::optional<Run> Scheduler::next(std::size_t path, Nanos at) {
  Path& p = paths_[path];
  if (p.share <= 0 || p.stalled) return std::nullopt;
  if (spec_.policy == Policy::kSingle) {
    for (std::size_t i = 0; i < path; ++i)
      if (paths_[i].share > 0 && !paths_[i].stalled) return std::nullopt;
  }
  if (spec_.policy == Policy::kRoundRobin && !my_turn(path)) return std::nullopt;
  const std::uint32_t most = run_length(p);
  if (!p.flights.empty() && p.held + most * spec_.block > window(p)) return std::nullopt;

  if (auto run = returned(most)) {
    p.counts.again += bytes(*run);
    return give(p, *run, run->count, at);
  }
  if (auto run = fresh(path, most)) {
    if (spec_.policy == Policy::kRoundRobin) turn_ = (turn_ + 1) % paths_.size();
    return give(p, *run, run->count, at);
  }
  if (spec_.policy != Policy::kPull) return std::nullopt;
  if (auto run = steal(path, most, at)) {
    p.counts.again += bytes(*run);
    return give(p, *run, 0, at);
  }
  return std::nullopt;
}

std::optional<Run> Scheduler::returned(std::uint32_t most) {
  while (!returned_.empty()) {
    Run& run = returned_.front();
    const Transfer* transfer = find(run.transfer);
    if (transfer != nullptr) {
      // What has come meanwhile over the path that was thought lost is not sent again.
      while (run.count > 0 && transfer->has[run.first]) ++run.first, --run.count;
      std::uint32_t count = 0;
      while (count < std::min(run.count, most) && !transfer->has[run.first + count]) ++count;
      if (count > 0) {
        const Run taken{run.transfer, run.first, count};
        run.first += count;
        run.count -= count;
        if (run.count == 0) returned_.pop_front();
        return taken;
      }
    }
    returned_.pop_front();
  }
  return std::nullopt;
}

std::optional<Run> Scheduler::fresh(std::size_t path, std::uint32_t most) {
  for (std::uint64_t number = beginning_; number < first_ + transfers_.size(); ++number) {
    Transfer& transfer = transfers_[number - first_];
    if (!transfer.shares.empty()) {
      // The share of a path that cannot be used is anybody's.
      for (std::size_t i = 0; i < paths_.size(); ++i) {
        const std::size_t whose = (path + i) % paths_.size();
        if (i > 0 && paths_[whose].share > 0 && !paths_[whose].stalled) continue;
        Range& share = transfer.shares[whose];
        if (share.next == share.end) continue;
        const std::uint32_t count = std::min(most, share.end - share.next);
        share.next += count;
        return Run{number, share.next - count, count};
      }
      continue;
    }
    if (transfer.dropped || transfer.fresh == transfer.blocks) {
      if (number == beginning_) ++beginning_;
      continue;
    }
    const std::uint32_t count = std::min(most, transfer.blocks - transfer.fresh);
    transfer.fresh += count;
    return Run{number, transfer.fresh - count, count};
  }
  return std::nullopt;
}

std::optional<Run> Scheduler::steal(std::size_t path, std::uint32_t most, Nanos at) {
  const double mine = rate(path, at);
  if (mine <= 0 || spec_.duplicates <= 0) return std::nullopt;
  const std::size_t size = most * spec_.block;
  if (static_cast<double>(all_stolen_ + size) >
      spec_.duplicates * static_cast<double>(all_sent_) + static_cast<double>(size))
    return std::nullopt;
  const double own = kAhead * static_cast<double>(paths_[path].held + size) / mine;
  double latest = own;
  Flight* found = nullptr;
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    Path& other = paths_[i];
    if (i == path || other.flights.empty() || other.stalled) continue;
    // From the last run back: the first that nobody else has is the one that comes last.
    double ahead = static_cast<double>(other.held);
    for (auto flight = other.flights.rbegin(); flight != other.flights.rend(); ++flight) {
      const double theirs = rate(i, at);
      const double finish = theirs <= 0 ? std::numeric_limits<double>::infinity()
                                        : ahead / theirs - seconds(at - silence_since(other));
      if (finish <= latest) break;
      if (flight->only > 0) {
        latest = finish;
        found = &*flight;
        break;
      }
      ahead -= static_cast<double>(flight->bytes);
    }
  }
  if (found == nullptr || find(found->run.transfer) == nullptr) return std::nullopt;
  const std::uint32_t count = std::min(most, found->only);
  found->only -= count;
  const Run run{found->run.transfer, found->run.first + found->only, count};
  all_stolen_ += bytes(run);
  return run;
}

void Scheduler::deliver(std::size_t path, const Run& run, Nanos at) {
  Path& p = paths_[path];
  const auto flight = std::find_if(p.flights.begin(), p.flights.end(),
                                   [&](const Flight& f) { return f.run == run; });
  if (flight != p.flights.end()) {
    p.sample_bytes += flight->bytes;
    p.sample_time += at - std::max(p.last, flight->posted);
    p.quickest = std::min(p.quickest, at - flight->posted);
    if (p.rate <= 0 || p.sample_time >= spec_.horizon / kRunsInWindow) {
      const double sample =
          static_cast<double>(p.sample_bytes) / seconds(std::max<Nanos>(p.sample_time, 1000));
      p.rate += (p.rate <= 0 ? 1 : kNew) * (sample - p.rate);
      p.sample_bytes = 0;
      p.sample_time = 0;
    }
    p.held -= flight->bytes;
    p.flights.erase(flight);
    p.last = at;
    p.stalled = false;
  }
  Transfer* transfer = find(run.transfer);
  if (transfer == nullptr) return;
  std::size_t fresh = 0;
  for (std::uint32_t block = run.first; block < run.first + run.count; ++block) {
    if (transfer->has[block]) continue;
    transfer->has[block] = true;
    if (!transfer->late.empty() && transfer->late[block]) recovered_ = at;
    ++transfer->delivered;
    fresh += block + 1 < transfer->blocks ? spec_.block : block_bytes(*transfer, block, 1);
  }
  transfer->delivered_bytes += fresh;
  p.counts.delivered += fresh;
}

void Scheduler::reject(std::size_t path, const Run& run, Nanos at) {
  Path& p = paths_[path];
  const auto flight = std::find_if(p.flights.begin(), p.flights.end(),
                                   [&](const Flight& f) { return f.run == run; });
  if (flight == p.flights.end()) return;
  abandon(p, *flight);
  p.held -= flight->bytes;
  p.flights.erase(flight);
  p.last = at;
}

}  // namespace cwai::multipath

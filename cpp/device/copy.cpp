#include "device/copy.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "device/kernels.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::size_t kUnit = 16;

// One copy, on a stream of its own.
struct Flow {
  const Gpu& gpu;
  std::byte* to;
  const std::byte* from;
  std::size_t bytes;
};

// Copies that start together; a round is over when all are.
class Flows {
 public:
  explicit Flows(std::vector<Flow> flows) : flows_(std::move(flows)), fork_(flows_.front().gpu) {
    for (const Flow& flow : flows_) {
      streams_.emplace_back(flow.gpu);
      done_.emplace_back(flow.gpu);
    }
  }

  const Stream& first() const noexcept { return streams_.front(); }

  void post() const {
    if (flows_.size() > 1) fork_.record(first());
    for (std::size_t i = 1; i < flows_.size(); ++i) streams_[i].after(fork_);
    for (std::size_t i = 0; i < flows_.size(); ++i)
      streams_[i].copy(flows_[i].to, flows_[i].from, flows_[i].bytes);
    for (std::size_t i = 1; i < flows_.size(); ++i) {
      done_[i].record(streams_[i]);
      first().after(done_[i]);
    }
  }

 private:
  std::vector<Flow> flows_;
  std::deque<Stream> streams_;
  std::deque<Event> done_;
  Event fork_;
};

std::vector<double> timed(const Flows& flows, const CopySpec& spec, const Watch& watch) {
  std::vector<double> samples =
      time_rounds(flows.first(), spec.timing, [&flows] { flows.post(); }, watch);
  for (double& sample : samples) sample = static_cast<double>(spec.bytes) / sample;
  return samples;
}

void refuse_odd(const CopySpec& spec) {
  if (spec.bytes == 0 || spec.bytes % kUnit != 0)
    throw Error(Fault::kInvalid, "bytes=" + std::to_string(spec.bytes));
}

Mismatch worse(const Mismatch& one, const Mismatch& other) { return one.wrong ? one : other; }

// The data of one copy, and whether it has arrived.
void fill(Kernels& kernels, const Gpu& gpu, std::byte* data, const CopySpec& spec,
          std::uint64_t seed, const Watch& watch) {
  const Stream stream(gpu);
  kernels.fill(stream, data, spec.bytes, {seed});
  stream.wait(watch);
}
Mismatch check(Kernels& kernels, const Gpu& gpu, const std::byte* data, const CopySpec& spec,
               std::uint64_t seed, const Watch& watch) {
  const Stream stream(gpu);
  kernels.check(stream, data, spec.bytes, {seed});
  return kernels.found(stream, watch);
}

}  // namespace

CopyResult measure_card_copy(const Gpu& gpu, int streams, const CopySpec& spec,
                             const Watch& watch) {
  refuse_odd(spec);
  const auto parts = static_cast<std::size_t>(streams);
  if (streams < 1 || spec.bytes < parts * kUnit)
    throw Error(Fault::kInvalid, "streams=" + std::to_string(streams));
  ProgressOwner progress("copy", spec.bytes);
  progress.phase(Phase::kTimed);
  const GpuMemory from(gpu, spec.bytes), to(gpu, spec.bytes);
  Kernels kernels(gpu);
  fill(kernels, gpu, from.data(), spec, spec.seed, watch);

  std::vector<Flow> flows;
  const std::size_t part = spec.bytes / parts / kUnit * kUnit;
  for (std::size_t i = 0; i < parts; ++i) {
    const std::size_t at = i * part, bytes = i + 1 < parts ? part : spec.bytes - at;
    flows.push_back({gpu, to.data() + at, from.data() + at, bytes});
  }
  const Flows all(std::move(flows));
  CopyResult result{timed(all, spec, watch), {}};
  result.found = check(kernels, gpu, to.data(), spec, spec.seed, watch);
  return result;
}

CopyResult measure_host_copy(const Gpu& gpu, Direction direction, const CopySpec& spec,
                             const Watch& watch) {
  refuse_odd(spec);
  ProgressOwner progress("host_copy", spec.bytes);
  progress.phase(Phase::kTimed);
  const bool there = direction != Direction::kBack, back = direction != Direction::kThere;
  const std::size_t none = kUnit;
  const PinnedMemory sent(gpu, there ? spec.bytes : none), arrived(gpu, back ? spec.bytes : none);
  const GpuMemory to(gpu, there ? spec.bytes : none), from(gpu, back ? spec.bytes : none);
  Kernels kernels(gpu);
  const std::uint64_t seed_back = mix(spec.seed);
  std::vector<Flow> flows;
  if (there) {
    fill_pattern(sent.data(), spec.bytes, spec.seed);
    flows.push_back({gpu, to.data(), sent.data(), spec.bytes});
  }
  if (back) {
    fill(kernels, gpu, from.data(), spec, seed_back, watch);
    flows.push_back({gpu, arrived.data(), from.data(), spec.bytes});
  }
  const Flows all(std::move(flows));
  CopyResult result{timed(all, spec, watch), {}};
  progress.phase(Phase::kVerify);
  if (there) result.found = check(kernels, gpu, to.data(), spec, spec.seed, watch);
  if (back) {
    Mismatch bytes = check_pattern(arrived.data(), spec.bytes, seed_back);
    if (bytes.wrong != 0) bytes.first_bad /= 8;
    result.found = worse(result.found, bytes);
  }
  return result;
}

PeerResult measure_peer_copy(const Gpu& source, const Gpu& target, Direction direction,
                             const CopySpec& spec, const Watch& watch) {
  refuse_odd(spec);
  if (direction == Direction::kBack) throw Error(Fault::kInvalid, "direction=back");
  if (source.ordinal() == target.ordinal())
    throw Error(Fault::kInvalid, "target=" + std::to_string(target.ordinal()));
  ProgressOwner progress("peer_copy", spec.bytes);
  progress.phase(Phase::kTimed);
  const bool back = direction == Direction::kBoth;
  // Both must be asked: whoever copies reads or writes the other's memory.
  const bool reaches = source.reach(target), reached = target.reach(source);
  PeerResult result{{}, reaches && reached};

  const GpuMemory from(source, spec.bytes), to(target, spec.bytes);
  const std::size_t returned = back ? spec.bytes : kUnit;
  const GpuMemory back_from(target, returned), back_to(source, returned);
  Kernels at_source(source), at_target(target);
  const std::uint64_t seed_back = mix(spec.seed);
  fill(at_source, source, from.data(), spec, spec.seed, watch);
  std::vector<Flow> flows = {{source, to.data(), from.data(), spec.bytes}};
  if (back) {
    fill(at_target, target, back_from.data(), spec, seed_back, watch);
    flows.push_back({target, back_to.data(), back_from.data(), spec.bytes});
  }
  const Flows all(std::move(flows));
  result.samples = timed(all, spec, watch);
  result.found = check(at_target, target, to.data(), spec, spec.seed, watch);
  if (back)
    result.found =
        worse(result.found, check(at_source, source, back_to.data(), spec, seed_back, watch));
  return result;
}

}  // namespace cwai

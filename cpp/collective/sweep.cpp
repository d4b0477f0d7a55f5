#include "collective/sweep.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "collective/data.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {

// A point holds at least one element for each rank, however few bytes it asks for.
Sweep::Sweep(CollectiveBackend& backend, std::size_t largest)
    : backend_(backend),
      send_(std::max(largest, static_cast<std::size_t>(backend.size()) * sizeof(double))),
      receive_(send_.size()) {}

// A rank that left an operation on its own would leave the others waiting in it. So one that has to
// stop, or is late, says so here, and all leave together.
double Sweep::agree(double mine, const Watch& watch) {
  const auto flag = [](bool set) { return set ? 1.0 : 0.0; };
  const auto [largest, stopped, late] =
      backend_.largest({mine, flag(stop_requested()), flag(now() >= watch.deadline())});
  if (stopped > 0) throw Error(Fault::kStopped, "");
  if (late > 0) throw Error(Fault::kDeadline, "");
  return largest;
}

PointResult Sweep::measure(const PointSpec& spec, const Watch& watch) {
  const int size = backend_.size();
  if (size > kMaxRanks) throw Error(Fault::kInvalid, "more than 16384 ranks");
  Shape shape{spec.operation, spec.element, backend_.rank(), size, 0};
  const std::size_t blocks = shape.in_blocks() ? static_cast<std::size_t>(size) : 1;
  const std::size_t unit = element_size(spec.element);
  shape.count = std::max<std::size_t>(1, spec.bytes / unit / blocks);
  if (shape.count * blocks > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw Error(Fault::kInvalid, "more elements than an MPI count holds");
  const std::size_t bytes = shape.count * blocks * unit;
  if (bytes > send_.size()) throw Error(Fault::kInvalid, "bytes beyond the largest size");

  PointResult result{bytes, shape.count, {}, spec.warmup, 0, -1};
  ProgressOwner progress(operation_name(spec.operation), bytes);
  const Call call{spec.operation, spec.element, send_.data(), receive_.data(),
                  static_cast<int>(shape.count)};

  agree(0, watch);
  if (spec.verify) {
    progress.phase(Phase::kVerify);
    fill_send(shape, spec.seed, send_.data());
    // 0xFF is no number in any element type here, so what did not arrive cannot pass.
    std::memset(receive_.data(), 0xFF, bytes);
    backend_.run(call);
    const Mismatch found = check_received(shape, spec.seed, receive_.data());
    result.wrong = found.wrong;
    result.first_bad = found.first_bad;
  }

  progress.phase(Phase::kWarmup);
  Nanos warm = 0;
  for (std::uint64_t i = 0; i < spec.warmup; ++i) {
    backend_.barrier();
    const Nanos start = now();
    backend_.run(call);
    const Nanos end = now();
    warm = i == 0 ? end - start : std::min(warm, end - start);
  }
  // All ranks must do equally many: the slowest decides.
  const double each = std::max(agree(static_cast<double>(warm), watch), 100.0);
  const auto fitting = [each](Nanos time) {
    return static_cast<std::uint64_t>(static_cast<double>(time) / each);
  };
  const std::uint64_t iterations = spec.iterations > 0
                                       ? spec.iterations
                                       : std::clamp(fitting(spec.limit), spec.least, spec.most);
  constexpr Nanos kBetweenLooks = kSecond / 4;
  const std::uint64_t stride = std::max<std::uint64_t>(fitting(kBetweenLooks), 1);

  progress.phase(Phase::kTimed);
  result.samples.resize(iterations);
  for (std::uint64_t i = 0; i < iterations; ++i) {
    if (i > 0 && i % stride == 0) agree(0, watch);
    backend_.barrier();
    const Nanos start = now();
    backend_.run(call);
    const Nanos end = now();
    result.samples[i] = seconds(end - start);
    progress.iteration(i + 1);
  }
  return result;
}

}  // namespace cwai

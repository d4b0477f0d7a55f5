#include "collective/sweep.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "collective/data.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {

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
  if (send_.size() < bytes) send_ = Buffer(bytes);
  if (receive_.size() < bytes) receive_ = Buffer(bytes);

  PointResult result{bytes, shape.count, {}, spec.warmup, 0, -1};
  ProgressOwner progress(operation_name(spec.operation), bytes);
  const Call call{spec.operation, spec.element, send_.data(), receive_.data(),
                  static_cast<int>(shape.count)};

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
    watch.check(end);
  }
  // All ranks must do equally many: rank 0 decides.
  std::uint64_t iterations = spec.iterations;
  if (iterations == 0) {
    const auto each = static_cast<std::uint64_t>(std::max<Nanos>(warm, 100));
    iterations = std::clamp(static_cast<std::uint64_t>(spec.limit) / each, spec.least, spec.most);
    iterations = backend_.from_first(iterations);
  }

  progress.phase(Phase::kTimed);
  result.samples.resize(iterations);
  for (std::uint64_t i = 0; i < iterations; ++i) {
    backend_.barrier();
    const Nanos start = now();
    backend_.run(call);
    const Nanos end = now();
    result.samples[i] = seconds(end - start);
    progress.iteration(i + 1);
    watch.check(end);
  }
  return result;
}

}  // namespace cwai

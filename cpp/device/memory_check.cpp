#include "device/memory_check.hpp"

#include <algorithm>
#include <memory>
#include <span>
#include <string>

#include "device/kernels.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

constexpr std::size_t kUnit = 1 << 21;  // the GPU hands memory out in such pieces
constexpr int kTries = 5;

// As much as is to be had of ``bytes``: what is free need not be free at the next moment.
std::unique_ptr<GpuMemory> taken(const Gpu& gpu, std::size_t bytes) {
  for (int attempt = 1;; ++attempt) {
    try {
      return std::make_unique<GpuMemory>(gpu, bytes / kUnit * kUnit);
    } catch (const Error&) {
      if (attempt == kTries) throw;
      bytes = bytes / 4 * 3;
    }
  }
}

}  // namespace

MemoryResult check_memory(const Gpu& gpu, const MemorySpec& spec, const Watch& watch) {
  if (!(spec.share > 0 && spec.share < 1))
    throw Error(Fault::kInvalid, "share=" + std::to_string(spec.share));
  Kernels kernels(gpu);
  const Stream stream(gpu);
  const Event start(gpu), end(gpu);
  const auto free = static_cast<double>(gpu.memory().free);
  const auto memory = taken(gpu, static_cast<std::size_t>(spec.share * free));
  MemoryResult result;
  result.bytes = memory->size();
  ProgressOwner progress("memory", result.bytes);
  progress.phase(Phase::kVerify);
  while (result.passes < spec.passes && result.wrong == 0) {
    const auto half = static_cast<std::uint64_t>(result.passes / 2);
    const Pattern pattern{mix(spec.seed + half), result.passes % 2 == 1};
    start.record(stream);
    kernels.fill(stream, memory->data(), result.bytes, pattern);
    kernels.check(stream, memory->data(), result.bytes, pattern);
    end.record(stream);
    const Mismatch found = kernels.found(stream, watch);
    progress.iteration(static_cast<std::uint64_t>(++result.passes));
    const double rate = 2 * static_cast<double>(result.bytes) / end.since(start);
    result.slowest = result.passes == 1 ? rate : std::min(result.slowest, rate);
    result.wrong = found.wrong;
    if (found.wrong == 0) continue;
    const auto word = static_cast<std::size_t>(found.first_bad);
    result.first_bad = static_cast<std::int64_t>(8 * word);
    result.expected = pattern.word(word);
    gpu.read(std::as_writable_bytes(std::span(&result.found, 1)), memory->data() + 8 * word);
  }
  return result;
}

}  // namespace cwai

// The few programs that the GPU itself runs for us, as text that the driver compiles for whatever
// card is there (PTX): no compiler is needed, neither to build nor to run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda.hpp"
#include "support/pattern.hpp"
#include "support/stop.hpp"

namespace cwai {

/// Seeded data in words of 8 bytes: that of fill_pattern(), or the same with every bit turned over.
struct Pattern {
  std::uint64_t seed;
  bool inverted = false;

  constexpr std::uint64_t word(std::size_t index) const noexcept {
    return mix(seed + 8 * index) ^ (inverted ? ~std::uint64_t{0} : 0);
  }
};

/// Programs on one GPU. Sizes are in bytes and multiples of 16; all is queued on a stream.
class Kernels {
 public:
  /// Throws Error(kDevice) where the driver cannot compile them, or they do not find a wrong bit
  /// that is planted for them.
  explicit Kernels(const Gpu& gpu);
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  void fill(const Stream& stream, std::byte* data, std::size_t bytes, Pattern pattern) const;

  /// Counts words that are not as the pattern has them, or that differ, until found().
  void check(const Stream& stream, const std::byte* data, std::size_t bytes, Pattern pattern) const;
  void compare(const Stream& stream, const std::byte* one, const std::byte* other,
               std::size_t bytes) const;

  /// Waits, and tells what was counted since the last time. Units are words of 8 bytes.
  Mismatch found(const Stream& stream, const Watch& watch);

 private:
  void launch(const Stream& stream, void* program, void** arguments) const;
  void prove();
  void clear() const;

  Gpu gpu_;
  GpuMemory found_;  // how many, and the first one
  unsigned blocks_;
  void* module_ = nullptr;
  void *fill_ = nullptr, *check_ = nullptr, *compare_ = nullptr;
};

}  // namespace cwai

// Square matrix products by cuBLASLt: how fast a GPU computes, and whether it always computes the
// same, and the right thing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "device/cublaslt.hpp"
#include "device/cuda.hpp"
#include "device/timing.hpp"
#include "support/stop.hpp"

namespace cwai {

/// What is multiplied. Sums are kept in the same type for fp64, else in fp32; the result is of the
/// type of the factors, of tf32 in fp32, of fp8 (e4m3) in bf16.
enum class Precision : std::uint8_t { kFp64, kFp32, kTf32, kBf16, kFp16, kFp8 };
constexpr std::size_t kPrecisions = 6;

/// Throws Error(kInvalid) for a name that is none: ``fp64``, ``tf32`` …
Precision precision_of(std::string_view name);

struct GemmSpec {
  Precision precision;
  std::size_t size;  ///< Rows and columns; a multiple of 16.
  std::uint64_t seed;
  TimingSpec timing;
};

struct GemmResult {
  /// The library has no such product for this GPU; nothing else is told then but its name.
  bool supported = false;
  std::string library;
  std::vector<double>
      samples;              ///< Floating-point operations per second: 2 · size³ in each product.
  std::size_t tried = 0;    ///< Algorithms of which the fastest was taken.
  bool transposed = false;  ///< The first factor lies row by row.
};

/// The fastest of the algorithms that the library proposes, on random data (a GPU multiplies zeros
/// with less power, and so faster).
GemmResult measure_gemm(const Gpu& gpu, const cublaslt::Library& library, const GemmSpec& spec,
                        const Watch& watch);

struct ComputeResult {
  bool supported = false;
  std::string library;
  std::uint64_t products = 0;  ///< How often the product was computed and compared with the first.

  /// Elements of the first product that were computed by the CPU as well; how many are farther from
  /// that than rounding explains, and the largest distance as a share of that bound. Of fp8 none:
  /// how its sums are rounded is not told.
  std::uint64_t sampled = 0, beyond = 0;
  double worst = 0;

  /// Words of 8 bytes that differ from the first product, in the first one that did; the elements
  /// in one of them.
  std::uint64_t wrong = 0;

  /// Of the first bad element: -1 when there is none. What was there at first, later, and by the
  /// CPU.
  std::int64_t row = -1, column = -1;
  double first = 0, later = 0, exact = 0;
};

/// The same product again and again, for ``spec.timing.duration``, each compared with the first bit
/// by bit. Ends with the first that differs.
ComputeResult check_compute(const Gpu& gpu, const cublaslt::Library& library, const GemmSpec& spec,
                            const Watch& watch);

}  // namespace cwai

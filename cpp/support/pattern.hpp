// Seeded data: what is sent to be verified, and the comparison on arrival.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cwai {

/// A well-mixed 64-bit hash (the finaliser of splitmix64; Steele, Lea, Flood, OOPSLA 2014).
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

struct Mismatch {
  std::uint64_t wrong = 0;      ///< How many units differ.
  std::int64_t first_bad = -1;  ///< Index of the first one; -1 when none does.
};

/// Fills ``size`` bytes; every byte depends on ``seed`` and on its index.
void fill_pattern(std::byte* data, std::size_t size, std::uint64_t seed) noexcept;

/// Compares with what fill_pattern() writes; units are bytes.
Mismatch check_pattern(const std::byte* data, std::size_t size, std::uint64_t seed) noexcept;

}  // namespace cwai

// Exact data: what each rank sends, and what must arrive. Every value is a whole number that the
// element type holds exactly, and so is every sum, in whatever order it is added: one wrong bit is
// a wrong result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "collective/backend.hpp"
#include "support/pattern.hpp"

namespace cwai {

/// Sums stay below 2^24, which a float32 holds exactly, for up to this many ranks.
constexpr int kMaxRanks = 16384;

struct Shape {
  Operation operation;
  Element element;
  int rank;
  int size;
  std::size_t count;  ///< Elements per block, as in Call.

  bool in_blocks() const noexcept {
    return operation == Operation::kAllGather || operation == Operation::kReduceScatter ||
           operation == Operation::kAllToAll;
  }
  /// Elements in this rank's buffers; 0 where the rank has none to read (reduce, but at the root).
  std::size_t sent() const noexcept;
  std::size_t received() const noexcept;
};

/// Writes what this rank sends.
void fill_send(const Shape& shape, std::uint64_t seed, std::byte* send) noexcept;

/// Compares what arrived with what every rank should have sent; units are elements.
Mismatch check_received(const Shape& shape, std::uint64_t seed, const std::byte* received) noexcept;

}  // namespace cwai

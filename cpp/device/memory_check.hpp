// Whether the memory of a GPU keeps what is written to it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda.hpp"
#include "support/stop.hpp"

namespace cwai {

struct MemorySpec {
  double share;  ///< Of the memory that is free: above 0, below 1.
  int passes;  ///< Each writes other data; every second one is the one before with all bits turned
               ///< over.
  std::uint64_t seed;
};

struct MemoryResult {
  std::size_t bytes = 0;  ///< That were looked at.
  int passes = 0;
  double slowest = 0;       ///< Bytes per second of the slowest pass, written and read back.
  std::uint64_t wrong = 0;  ///< Words of 8 bytes in the first pass that has any; it is the last.
  std::int64_t first_bad = -1;            ///< Offset of the first in bytes.
  std::uint64_t expected = 0, found = 0;  ///< In that word.
};

/// Writes most of the memory that is free and reads it back, by the GPU's own programs.
MemoryResult check_memory(const Gpu& gpu, const MemorySpec& spec, const Watch& watch);

}  // namespace cwai

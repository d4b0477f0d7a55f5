#pragma once

#include <atomic>
#include <cstdint>

/// How the memory of the fake GPU (fake_kernels.cpp) is to fail, and what was launched.
struct FakeKernels {
  std::atomic<std::int64_t> loses{-1};  ///< Byte of a fill of which a bit turns over, once.
  std::atomic<bool> blind{false};       ///< Checks and comparisons find nothing.
};

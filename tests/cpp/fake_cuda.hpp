#pragma once

#include <atomic>

/// What the fake library (fake_cuda.cpp) counts, and what a test asks of it.
struct FakeCuda {
  std::atomic<int> contexts{0};   ///< Retained and not released.
  std::atomic<int> allocated{0};  ///< Pieces of memory.
  std::atomic<int> made{0};       ///< Streams, events and graphs.
  bool dma_buf = true;            ///< The device makes dma-bufs.
  bool flushable = true;          ///< What NICs wrote can be flushed.
  std::atomic<int> flushes{0};    ///< Done so far.
  bool full = false;              ///< No memory is left.
};

// Whether NICs can reach the memory of this process's GPUs, and what has to be done for that. It
// asks the driver that the job has loaded, and loads none.
#pragma once

#include <string>

namespace cwai::nccl_net {

struct GpuReach {
  bool dma_buf = false;  ///< The driver gives memory away as dma-bufs.
  bool peermem = false;  ///< A module in the kernel makes addresses of GPUs known to registration.
  std::string why_not = {};  ///< Neither can be used, and why.
};

GpuReach gpu_reach();

/// From here on the current GPU sees what NICs wrote to its memory before. Throws Error(kDevice).
void flush_gpu();

}  // namespace cwai::nccl_net

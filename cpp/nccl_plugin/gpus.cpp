#include "nccl_plugin/gpus.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "device/cuda_abi.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai::nccl_net {
namespace {

// What we use of the driver; a null function is one that it is too old to have.
struct Driver {
  DynamicLibrary library = DynamicLibrary::already_loaded("libcuda.so.1");
  int (*count)(int*) = library.find<int(int*)>("cuDeviceGetCount");
  int (*attribute)(int*, int, int) = library.find<int(int*, int, int)>("cuDeviceGetAttribute");
  int (*current)(int*) = library.find<int(int*)>("cuCtxGetDevice");
  // Since CUDA 11.3.
  int (*flush)(int, int) = library.find<int(int, int)>("cuFlushGPUDirectRDMAWrites");

  int ask(int attribute_number, int device) const {
    int value = 0;
    return attribute(&value, attribute_number, device) == 0 ? value : 0;
  }
  // What NICs write is seen by its owner in order, without a flush.
  bool ordered(int device) const { return ask(cuda::kWritesOrdering, device) >= cuda::kToOwner; }
  bool flushes(int device) const {
    return flush != nullptr && (ask(cuda::kFlushOptions, device) & cuda::kFlushByHost) != 0;
  }
};

// The module of NVIDIA's driver, and the two before it.
bool peermem_loaded() {
  constexpr std::array kModules = {"/sys/module/nvidia_peermem/version",
                                   "/sys/kernel/mm/memory_peers/nv_mem/version",
                                   "/sys/kernel/mm/memory_peers/nv_mem_nc/version"};
  return std::any_of(kModules.begin(), kModules.end(),
                     [](const char* path) { return std::filesystem::exists(path); });
}

}  // namespace

GpuReach gpu_reach() {
  try {
    const Driver driver;
    int count = 0;
    if (driver.count == nullptr || driver.attribute == nullptr || driver.current == nullptr ||
        driver.count(&count) != 0 || count == 0)
      return {.why_not = "no GPU is in use here"};
    GpuReach reach{.dma_buf = true, .peermem = peermem_loaded()};
    for (int device = 0; device < count; ++device) {
      const std::string name = "GPU " + std::to_string(device);
      if (driver.ask(cuda::kGpuDirect, device) == 0)
        return {.why_not = name + " has no GPUDirect RDMA"};
      if (!driver.ordered(device) && !driver.flushes(device))
        return {.why_not = name + ": its driver cannot flush what NICs write"};
      reach.dma_buf = reach.dma_buf && driver.ask(cuda::kDmaBuf, device) != 0;
    }
    if (!reach.dma_buf && !reach.peermem)
      reach.why_not = "no dma-buf from the driver, and no nvidia_peermem in the kernel";
    return reach;
  } catch (const Error& error) {
    return {.why_not = error.what()};
  }
}

void flush_gpu() {
  static const Driver* const driver = new Driver;  // never let go: threads may outlive main()
  int device = 0;
  if (driver->current(&device) != 0) throw Error(Fault::kDevice, "no GPU is current");
  if (driver->ordered(device)) return;
  if (driver->flush == nullptr || driver->flush(cuda::kCurrentContext, cuda::kToOwner) != 0)
    throw Error(Fault::kDevice, "GPU " + std::to_string(device) + ": flush");
}

}  // namespace cwai::nccl_net

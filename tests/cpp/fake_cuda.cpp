// A libcuda without a GPU: one device whose memory is this process's; a dma-buf of it is a file
// descriptor of nothing.
#include "fake_cuda.hpp"

#include <fcntl.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kInvalidDevice = 101;
constexpr int kOutOfMemory = 2;
FakeCuda counts;

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED FakeCuda* fake_cuda() { return &counts; }

EXPORTED int cuInit(unsigned) { return 0; }
EXPORTED int cuDeviceGetByPCIBusId(int* device, const char* address) {
  *device = 1;
  return std::strcmp(address, "0000:1b:00.0") == 0 ? 0 : kInvalidDevice;
}
EXPORTED int cuDeviceGetAttribute(int* value, int, int) {
  *value = counts.dma_buf ? 1 : 0;
  return 0;
}
EXPORTED int cuDevicePrimaryCtxRetain(void** context, int) {
  ++counts.contexts;
  *context = &counts;
  return 0;
}
EXPORTED int cuDevicePrimaryCtxRelease_v2(int) {
  --counts.contexts;
  return 0;
}
EXPORTED int cuCtxSetCurrent(void*) { return 0; }
EXPORTED int cuMemAlloc_v2(std::uint64_t* address, std::size_t size) {
  if (counts.full) return kOutOfMemory;
  ++counts.allocated;
  *address = reinterpret_cast<std::uint64_t>(std::aligned_alloc(1U << 21, size));
  return 0;
}
EXPORTED int cuMemFree_v2(std::uint64_t address) {
  --counts.allocated;
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
EXPORTED int cuMemcpyHtoD_v2(std::uint64_t to, const void* from, std::size_t size) {
  std::memcpy(reinterpret_cast<void*>(to), from, size);
  return 0;
}
EXPORTED int cuMemcpyDtoH_v2(void* to, std::uint64_t from, std::size_t size) {
  std::memcpy(to, reinterpret_cast<const void*>(from), size);
  return 0;
}
EXPORTED int cuMemsetD8_v2(std::uint64_t address, unsigned char value, std::size_t size) {
  std::memset(reinterpret_cast<void*>(address), value, size);
  return 0;
}
EXPORTED int cuGetErrorName(int error, const char** name) {
  *name = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INVALID_DEVICE";
  return 0;
}
EXPORTED int cuMemGetHandleForAddressRange(void* handle, std::uint64_t, std::size_t, int,
                                           unsigned long long) {
  const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  std::memcpy(handle, &fd, sizeof fd);
  return 0;
}

#include "device/cuda.hpp"

#include <type_traits>

#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

// As /usr/local/cuda/include/cuda.h of CUDA 12 and 13 has them.
constexpr int kDmaBufSupported = 124;  // CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED
constexpr int kDmaBufFd = 1;           // CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD

// libcuda is loaded once and stays: its driver does not like to go.
struct Driver {
  DynamicLibrary library = DynamicLibrary::open("libcuda.so.1");
  int (*init)(unsigned) = nullptr;
  int (*get_device)(int*, const char*) = nullptr;
  int (*get_attribute)(int*, int, int) = nullptr;
  int (*retain)(void**, int) = nullptr;
  int (*release)(int) = nullptr;
  int (*set_current)(void*) = nullptr;
  int (*allocate)(std::uint64_t*, std::size_t) = nullptr;
  int (*free)(std::uint64_t) = nullptr;
  int (*to_device)(std::uint64_t, const void*, std::size_t) = nullptr;
  int (*to_host)(void*, std::uint64_t, std::size_t) = nullptr;
  int (*clear)(std::uint64_t, unsigned char, std::size_t) = nullptr;
  int (*error_name)(int, const char**) = nullptr;
  int (*handle)(void*, std::uint64_t, std::size_t, int,
                unsigned long long) = nullptr;  // from 11.7 on

  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

 private:
  Driver() {
    take(init, "cuInit");
    take(get_device, "cuDeviceGetByPCIBusId");
    take(get_attribute, "cuDeviceGetAttribute");
    take(retain, "cuDevicePrimaryCtxRetain");
    take(release, "cuDevicePrimaryCtxRelease_v2");
    take(set_current, "cuCtxSetCurrent");
    take(allocate, "cuMemAlloc_v2");
    take(free, "cuMemFree_v2");
    take(to_device, "cuMemcpyHtoD_v2");
    take(to_host, "cuMemcpyDtoH_v2");
    take(clear, "cuMemsetD8_v2");
    take(error_name, "cuGetErrorName");
    if (library.has("cuMemGetHandleForAddressRange")) take(handle, "cuMemGetHandleForAddressRange");
  }

  template <typename Function>
  void take(Function*& function, const char* symbol) {
    function = library.function<Function>(symbol);
  }
};

void check(int result, const std::string& what) {
  if (result == 0) return;
  const char* name = nullptr;
  Driver::get().error_name(result, &name);
  throw Error(Fault::kDevice, what, 0,
              name != nullptr ? name : "CUDA error " + std::to_string(result));
}

}  // namespace

GpuMemory::GpuMemory(const std::string& gpu, std::size_t size) : size_(size) {
  const Driver& driver = Driver::get();
  const std::string name = "GPU " + gpu;
  check(driver.init(0), name);
  check(driver.get_device(&device_, gpu.c_str()), name);
  check(driver.retain(&context_, device_), name);
  try {
    enter();
    check(driver.allocate(&address_, size), name + " memory");
    check(driver.clear(address_, 0, size), name + " memory");
  } catch (...) {
    if (address_ != 0) driver.free(address_);
    driver.release(device_);
    throw;
  }
}

GpuMemory::~GpuMemory() {
  const Driver& driver = Driver::get();
  driver.set_current(context_);
  driver.free(address_);
  driver.release(device_);
}

// Which context is current belongs to the thread.
void GpuMemory::enter() const { check(Driver::get().set_current(context_), "GPU context"); }

int GpuMemory::dma_buf() const {
  const Driver& driver = Driver::get();
  int supported = 0;
  if (driver.handle == nullptr ||
      driver.get_attribute(&supported, kDmaBufSupported, device_) != 0 || supported == 0)
    return -1;
  enter();
  int fd = -1;
  return driver.handle(&fd, address_, size_, kDmaBufFd, 0) == 0 ? fd : -1;
}

void GpuMemory::write(std::uint64_t to, const std::byte* from, std::size_t size) const {
  enter();
  check(Driver::get().to_device(to, from, size), "GPU copy");
}

void GpuMemory::read(std::byte* to, std::uint64_t from, std::size_t size) const {
  enter();
  check(Driver::get().to_host(to, from, size), "GPU copy");
}

}  // namespace cwai

#include "device/cuda.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include "device/cuda_abi.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"
#include "support/poll.hpp"

namespace cwai {
namespace {

using namespace cuda;

// libcuda is loaded once and stays: its driver does not like to go. A CUdeviceptr is an address.
struct Driver {
  DynamicLibrary library = DynamicLibrary::open("libcuda.so.1");
  int (*init)(unsigned) = take<int(unsigned)>("cuInit");
  int (*count)(int*) = take<int(int*)>("cuDeviceGetCount");
  int (*get)(int*, int) = take<int(int*, int)>("cuDeviceGet");
  int (*by_pci)(int*, const char*) = take<int(int*, const char*)>("cuDeviceGetByPCIBusId");
  int (*name)(char*, int, int) = take<int(char*, int, int)>("cuDeviceGetName");
  int (*pci)(char*, int, int) = take<int(char*, int, int)>("cuDeviceGetPCIBusId");
  int (*attribute)(int*, int, int) = take<int(int*, int, int)>("cuDeviceGetAttribute");
  int (*retain)(void**, int) = take<int(void**, int)>("cuDevicePrimaryCtxRetain");
  int (*release)(int) = take<int(int)>("cuDevicePrimaryCtxRelease_v2");
  int (*set_current)(void*) = take<int(void*)>("cuCtxSetCurrent");
  int (*can_reach)(int*, int, int) = take<int(int*, int, int)>("cuDeviceCanAccessPeer");
  int (*reach)(void*, unsigned) = take<int(void*, unsigned)>("cuCtxEnablePeerAccess");
  int (*memory)(std::size_t*,
                std::size_t*) = take<int(std::size_t*, std::size_t*)>("cuMemGetInfo_v2");
  int (*allocate)(std::byte**, std::size_t) = take<int(std::byte**, std::size_t)>("cuMemAlloc_v2");
  int (*free)(std::byte*) = take<int(std::byte*)>("cuMemFree_v2");
  int (*pin)(std::byte**, std::size_t,
             unsigned) = take<int(std::byte**, std::size_t, unsigned)>("cuMemHostAlloc");
  int (*unpin)(std::byte*) = take<int(std::byte*)>("cuMemFreeHost");
  int (*to_device)(std::byte*, const std::byte*, std::size_t) =
      take<int(std::byte*, const std::byte*, std::size_t)>("cuMemcpyHtoD_v2");
  int (*to_host)(std::byte*, const std::byte*, std::size_t) =
      take<int(std::byte*, const std::byte*, std::size_t)>("cuMemcpyDtoH_v2");
  int (*fill)(std::byte*, unsigned char,
              std::size_t) = take<int(std::byte*, unsigned char, std::size_t)>("cuMemsetD8_v2");
  int (*copy_queued)(std::byte*, const std::byte*, std::size_t, void*) =
      take<int(std::byte*, const std::byte*, std::size_t, void*)>("cuMemcpyAsync");
  int (*fill_queued)(std::byte*, unsigned char, std::size_t, void*) =
      take<int(std::byte*, unsigned char, std::size_t, void*)>("cuMemsetD8Async");
  int (*stream)(void**, unsigned) = take<int(void**, unsigned)>("cuStreamCreate");
  int (*end_stream)(void*) = take<int(void*)>("cuStreamDestroy_v2");
  int (*query)(void*) = take<int(void*)>("cuStreamQuery");
  int (*synchronize)(void*) = take<int(void*)>("cuStreamSynchronize");
  int (*wait_event)(void*, void*,
                    unsigned) = take<int(void*, void*, unsigned)>("cuStreamWaitEvent");
  int (*event)(void**, unsigned) = take<int(void**, unsigned)>("cuEventCreate");
  int (*end_event)(void*) = take<int(void*)>("cuEventDestroy_v2");
  int (*record)(void*, void*) = take<int(void*, void*)>("cuEventRecord");
  int (*elapsed)(float*, void*, void*) = take<int(float*, void*, void*)>("cuEventElapsedTime");
  int (*error_name)(int, const char**) = take<int(int, const char**)>("cuGetErrorName");
  // What an old driver may lack.
  int (*capture)(void*, int) = library.find<int(void*, int)>("cuStreamBeginCapture_v2");  // 10.1
  int (*captured)(void*, void**) = library.find<int(void*, void**)>("cuStreamEndCapture");
  int (*instantiate)(void**, void*, unsigned long long) =
      library.find<int(void**, void*, unsigned long long)>("cuGraphInstantiateWithFlags");  // 11.4
  int (*launch)(void*, void*) = library.find<int(void*, void*)>("cuGraphLaunch");
  int (*end_graph)(void*) = library.find<int(void*)>("cuGraphDestroy");
  int (*end_ready)(void*) = library.find<int(void*)>("cuGraphExecDestroy");
  int (*handle)(void*, std::byte*, std::size_t, int, unsigned long long) =
      library.find<int(void*, std::byte*, std::size_t, int, unsigned long long)>(
          "cuMemGetHandleForAddressRange");

  const int started = init(0);

 private:
  template <typename Function>
  Function* take(const char* symbol) const {
    return library.function<Function>(symbol);
  }
};

const Driver& loaded() {
  static const Driver driver;
  return driver;
}

void check(int result, const std::string& what) {
  if (result == 0) [[likely]]
    return;
  const char* name = nullptr;
  loaded().error_name(result, &name);
  throw Error(Fault::kDevice, what, 0,
              name != nullptr ? name : "CUDA error " + std::to_string(result));
}

const Driver& driver() {
  check(loaded().started, "cuInit");
  return loaded();
}

}  // namespace

// --------------------------------------------------------------------------------------------- Gpu

int Gpu::count() {
  if (loaded().started == kNoDevice) return 0;
  int found = 0;
  check(driver().count(&found), "GPUs");
  return found;
}

Gpu::Gpu(int ordinal) {
  const std::string name = "GPU " + std::to_string(ordinal);
  check(driver().get(&device_, ordinal), name);
  check(driver().retain(&context_, device_), name);
}

Gpu::Gpu(const std::string& pci) {
  const std::string name = "GPU " + pci;
  check(driver().by_pci(&device_, pci.c_str()), name);
  check(driver().retain(&context_, device_), name);
}

Gpu::Gpu(const Gpu& other) : device_(other.device_) {
  check(driver().retain(&context_, device_), "GPU " + std::to_string(device_));
}

Gpu::~Gpu() { loaded().release(device_); }

std::string Gpu::name() const {
  std::array<char, 256> text{};
  check(driver().name(text.data(), static_cast<int>(text.size() - 1), device_), "GPU name");
  return text.data();
}

std::string Gpu::pci() const {
  std::array<char, 32> text{};
  check(driver().pci(text.data(), static_cast<int>(text.size() - 1), device_), "GPU address");
  std::string address = text.data();
  std::transform(address.begin(), address.end(), address.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return address;
}

int Gpu::attribute(GpuAttribute attribute) const {
  int value = 0;
  check(driver().attribute(&value, static_cast<int>(attribute), device_), "GPU attribute");
  return value;
}

Gpu::Memory Gpu::memory() const {
  enter();
  Memory found{};
  check(driver().memory(&found.free, &found.total), "GPU memory");
  return found;
}

// Which context is current belongs to the thread.
void Gpu::enter() const { check(driver().set_current(context_), "GPU context"); }

// Copies and fills outside of our streams go by the default stream, for which these do not wait;
// and a copy to the GPU may return while it is under way ("API synchronization behavior", cuda.h's
// manual).
void Gpu::write(std::byte* to, std::span<const std::byte> from) const {
  enter();
  check(driver().to_device(to, from.data(), from.size()), "copy to GPU");
  check(driver().synchronize(nullptr), "copy to GPU");
}

void Gpu::read(std::span<std::byte> to, const std::byte* from) const {
  enter();
  check(driver().to_host(to.data(), from, to.size()), "copy from GPU");
}

void Gpu::fill(std::byte* to, std::uint8_t value, std::size_t bytes) const {
  enter();
  check(driver().fill(to, value, bytes), "fill of GPU memory");
  check(driver().synchronize(nullptr), "fill of GPU memory");
}

bool Gpu::reach(const Gpu& other) const {
  int can = 0;
  check(driver().can_reach(&can, device_, other.device_), "GPU peers");
  if (can == 0) return false;
  enter();
  const int result = driver().reach(other.context_, 0);
  if (result != kPeerEnabled) check(result, "GPU peers");
  return true;
}

// ------------------------------------------------------------------------------------------ memory

GpuMemory::GpuMemory(const Gpu& gpu, std::size_t bytes) : gpu_(gpu), size_(bytes) {
  gpu_.enter();
  check(driver().allocate(&data_, size_), "GPU memory");
  try {
    gpu_.fill(data_, 0, size_);
  } catch (...) {
    loaded().free(data_);
    throw;
  }
}

GpuMemory::~GpuMemory() {
  loaded().set_current(gpu_.context());
  loaded().free(data_);
}

int GpuMemory::dma_buf() const {
  if (driver().handle == nullptr || gpu_.attribute(GpuAttribute::kDmaBuf) == 0) return -1;
  gpu_.enter();
  int fd = -1;
  return driver().handle(&fd, data_, size_, kDmaBufFd, 0) == 0 ? fd : -1;
}

PinnedMemory::PinnedMemory(const Gpu& gpu, std::size_t bytes) : gpu_(gpu), size_(bytes) {
  gpu_.enter();
  check(driver().pin(&data_, size_, kPortable), "pinned memory");
  std::memset(data_, 0, size_);
}

PinnedMemory::~PinnedMemory() {
  loaded().set_current(gpu_.context());
  loaded().unpin(data_);
}

// ----------------------------------------------------------------------------------------- streams

Stream::Stream(const Gpu& gpu) : gpu_(gpu) {
  gpu_.enter();
  check(driver().stream(&handle_, kNonBlocking), "GPU stream");
}

// What is still queued is done nevertheless: the driver lets go of the stream after it.
Stream::~Stream() {
  loaded().set_current(gpu_.context());
  loaded().end_stream(handle_);
}

void Stream::copy(std::byte* to, const std::byte* from, std::size_t bytes) const {
  gpu_.enter();
  check(driver().copy_queued(to, from, bytes, handle_), "GPU copy");
}

void Stream::fill(std::byte* to, std::uint8_t value, std::size_t bytes) const {
  gpu_.enter();
  check(driver().fill_queued(to, value, bytes, handle_), "fill of GPU memory");
}

void Stream::after(const Event& event) const {
  gpu_.enter();
  check(driver().wait_event(handle_, event.handle_, 0), "GPU event");
}

bool Stream::done() const {
  gpu_.enter();
  const int result = driver().query(handle_);
  if (result == kNotReady) return false;
  check(result, "GPU stream");
  return true;
}

void Stream::wait(const Watch& watch) const {
  poll_until([this] { return done(); }, watch);
}

Event::Event(const Gpu& gpu) : gpu_(gpu) {
  gpu_.enter();
  check(driver().event(&handle_, 0), "GPU event");
}

Event::~Event() {
  loaded().set_current(gpu_.context());
  loaded().end_event(handle_);
}

void Event::record(const Stream& stream) const {
  gpu_.enter();
  check(driver().record(handle_, stream.handle()), "GPU event");
}

double Event::since(const Event& start) const {
  gpu_.enter();
  float milliseconds = 0;
  check(driver().elapsed(&milliseconds, start.handle_, handle_), "GPU event");
  return static_cast<double>(milliseconds) * 1e-3;
}

// ------------------------------------------------------------------------------------------ graphs

Graph::Graph(const Stream& stream) : stream_(stream) {
  if (!possible()) throw Error(Fault::kUnsupported, "CUDA graphs");
  stream_.gpu().enter();
  check(driver().capture(stream_.handle(), kCaptureOfThisThread), "CUDA graph");
}

// An error between the constructor and end() leaves the stream recording.
Graph::~Graph() {
  loaded().set_current(stream_.gpu().context());
  if (recording_) loaded().captured(stream_.handle(), &recorded_);
  if (ready_ != nullptr) loaded().end_ready(ready_);
  if (recorded_ != nullptr) loaded().end_graph(recorded_);
}

bool Graph::possible() { return driver().capture != nullptr && driver().instantiate != nullptr; }

void Graph::end() {
  stream_.gpu().enter();
  recording_ = false;
  check(driver().captured(stream_.handle(), &recorded_), "CUDA graph");
  check(driver().instantiate(&ready_, recorded_, 0), "CUDA graph");
}

void Graph::launch() const {
  stream_.gpu().enter();
  check(driver().launch(ready_, stream_.handle()), "CUDA graph");
}

}  // namespace cwai

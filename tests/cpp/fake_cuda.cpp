// A libcuda without a GPU. Streams are threads, so what is queued is truly done later; memory of a
// GPU is memory of this process that is known to be a GPU's, and pointers that are not are refused.
// As on a GPU, fills and copies to it go by a stream of their own, for which the others do not
// wait, and a context must be current. A dma-buf of memory is a file descriptor of nothing.
//
// Environment:
//   CWAI_FAKE_GPUS=8          how many GPUs there are
//   CWAI_FAKE_GPU_MAJOR=9     their compute capability
//   CWAI_FAKE_GPU_LATE=0      microseconds that a stream sleeps before the first work it finds
//   after
//                             it had none: a GPU that wakes up late
#include "fake_cuda.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

// CUresult
constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100, kInvalidDevice = 101,
              kInvalidContext = 201, kInvalidHandle = 400, kNotReady = 600, kPeerEnabled = 704,
              kCaptureUnsupported = 900;

constexpr std::size_t kMemory = std::size_t{16} << 30;
constexpr std::size_t kHugePage = 2 << 20;  // of which a dma-buf is made

FakeCuda counts;

long from_environment(const char* name, long otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtol(value, nullptr, 10);
}

// What is queued and the thread that does it. The thread holds on to it, and so outlives a stream
// that is destroyed before its work is done.
class Queue : public std::enable_shared_from_this<Queue> {
 public:
  using Work = std::function<void()>;

  static std::shared_ptr<Queue> started() {
    auto queue = std::make_shared<Queue>();
    std::thread([queue] { queue->run(); }).detach();
    return queue;
  }

  void push(Work work) {
    const std::lock_guard lock(mutex_);
    if (recording_ != nullptr) {
      recording_->push_back(std::move(work));
      return;
    }
    waiting_.push_back(std::move(work));
    ++pending_;
    changed_.notify_all();
  }
  bool idle() {
    const std::lock_guard lock(mutex_);
    return pending_ == 0;
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return pending_ == 0; });
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  bool recording() {
    const std::lock_guard lock(mutex_);
    return recording_ != nullptr;
  }
  void record() {
    const std::lock_guard lock(mutex_);
    recording_ = std::make_unique<std::vector<Work>>();
  }
  std::unique_ptr<std::vector<Work>> recorded() {
    const std::lock_guard lock(mutex_);
    return std::move(recording_);
  }

 private:
  void run() {
    const std::chrono::microseconds late(from_environment("CWAI_FAKE_GPU_LATE", 0));
    std::unique_lock lock(mutex_);
    bool asleep = true;
    while (true) {
      if (waiting_.empty()) {
        asleep = true;
        if (closed_) return;
        changed_.wait(lock);
        continue;
      }
      const Work work = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      if (std::exchange(asleep, false) && late.count() > 0) std::this_thread::sleep_for(late);
      work();
      lock.lock();
      --pending_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  std::size_t pending_ = 0;
  bool closed_ = false;
  std::unique_ptr<std::vector<Work>> recording_;
};

struct Device {
  int number;
  std::size_t used = 0;
  std::map<int, bool> reached = {};
  std::shared_ptr<Queue> queue = nullptr;  // of its default stream, once it is used
  pid_t owner = 0;                         // whose thread that is: a fork has none
  std::vector<std::pair<pid_t, std::weak_ptr<Queue>>> streams = {};  // of all its streams
};

struct Piece {
  std::size_t size;
  int device;  // -1: of the host
  void* mapped;
  std::size_t all;
};

// Never destroyed: threads of streams may outlast main().
struct World {
  std::mutex mutex;
  std::vector<Device> devices;
  std::map<std::uintptr_t, Piece> memory;

  static World& get() {
    static World& world = *new World;
    return world;
  }

 private:
  World() {
    const long gpus = std::clamp(from_environment("CWAI_FAKE_GPUS", 8), 0L, 8L);
    for (int number = 0; number < gpus; ++number) devices.push_back({.number = number});
  }
};

thread_local Device* current = nullptr;

// Where all of it lies: a device, or -1 for the host.
int place(const void* pointer, std::size_t size = 1) {
  World& world = World::get();
  const std::lock_guard lock(world.mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto after = world.memory.upper_bound(address);
  if (after == world.memory.begin()) return -1;
  const auto& [base, piece] = *std::prev(after);
  return address + size <= base + piece.size ? piece.device : -1;
}

// With the world's lock held.
std::shared_ptr<Queue> new_stream(Device& device) {
  std::erase_if(device.streams, [](const auto& stream) { return stream.second.expired(); });
  auto queue = Queue::started();
  device.streams.emplace_back(getpid(), queue);
  return queue;
}

Queue& default_stream() {
  const std::lock_guard lock(World::get().mutex);
  if (std::exchange(current->owner, getpid()) != getpid()) current->queue = new_stream(*current);
  return *current->queue;
}

// Memory is freed once nothing of its device is under way that may use it, as the real one does.
void wait_for_all_streams(int device) {
  std::vector<std::shared_ptr<Queue>> streams;
  {
    World& world = World::get();
    const std::lock_guard lock(world.mutex);
    for (const auto& [owner, stream] : world.devices[static_cast<std::size_t>(device)].streams)
      if (auto queue = stream.lock(); queue != nullptr && owner == getpid())
        streams.push_back(std::move(queue));
  }
  for (const auto& stream : streams) stream->wait();
}

int allocate(void** pointer, std::size_t size, int device) {
  World& world = World::get();
  const std::lock_guard lock(world.mutex);
  if (device >= 0) {
    std::size_t& used = world.devices[static_cast<std::size_t>(device)].used;
    if (counts.full || size > kMemory - used) return kOutOfMemory;
    used += size;
  }
  if (size == 0) return kInvalidValue;
  const std::size_t all = size + kHugePage;
  void* mapped = mmap(nullptr, all, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return kOutOfMemory;
  const auto start = (reinterpret_cast<std::uintptr_t>(mapped) + kHugePage - 1) & -kHugePage;
  world.memory[start] = {size, device, mapped, all};
  *pointer = reinterpret_cast<void*>(start);
  ++counts.allocated;
  return 0;
}

int release(void* pointer, bool of_device) {
  if (const int device = place(pointer); of_device && device >= 0) wait_for_all_streams(device);
  World& world = World::get();
  const std::lock_guard lock(world.mutex);
  const auto found = world.memory.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == world.memory.end() || (found->second.device >= 0) != of_device) return kInvalidValue;
  const Piece piece = found->second;
  if (of_device) world.devices[static_cast<std::size_t>(piece.device)].used -= piece.size;
  munmap(piece.mapped, piece.all);
  world.memory.erase(found);
  --counts.allocated;
  return 0;
}

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t asked = 0, happened = 0;
  std::chrono::steady_clock::time_point at;

  // Of this time that it is recorded.
  void happen(std::uint64_t which) {
    const std::lock_guard lock(mutex);
    at = std::chrono::steady_clock::now();
    happened = std::max(happened, which);
    changed.notify_all();
  }
};

using Work = Queue::Work;
using StreamHandle = std::shared_ptr<Queue>;
using EventHandle = std::shared_ptr<Event>;
using Graph = std::vector<Work>;

StreamHandle& stream_of(void* handle) { return *static_cast<StreamHandle*>(handle); }

int bad_device(int device) {
  return device < 0 || static_cast<std::size_t>(device) >= World::get().devices.size()
             ? kInvalidDevice
             : 0;
}

}  // namespace

// A report must say that it comes from a stand-in.
EXPORTED const int cwai_stand_in = 1;
EXPORTED FakeCuda* fake_cuda() { return &counts; }

EXPORTED int cuInit(unsigned) { return World::get().devices.empty() ? kNoDevice : 0; }
EXPORTED int cuGetErrorName(int error, const char** name) {
  switch (error) {
    case kInvalidValue:
      *name = "CUDA_ERROR_INVALID_VALUE";
      break;
    case kOutOfMemory:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      break;
    case kNoDevice:
      *name = "CUDA_ERROR_NO_DEVICE";
      break;
    case kInvalidDevice:
      *name = "CUDA_ERROR_INVALID_DEVICE";
      break;
    case kInvalidContext:
      *name = "CUDA_ERROR_INVALID_CONTEXT";
      break;
    case kInvalidHandle:
      *name = "CUDA_ERROR_INVALID_HANDLE";
      break;
    case kNotReady:
      *name = "CUDA_ERROR_NOT_READY";
      break;
    case kPeerEnabled:
      *name = "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED";
      break;
    case kCaptureUnsupported:
      *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
      break;
    default:
      *name = nullptr;
      return kInvalidValue;
  }
  return 0;
}

// ----------------------------------------------------------------------------------------- devices

EXPORTED int cuDeviceGetCount(int* count) {
  *count = static_cast<int>(World::get().devices.size());
  return 0;
}
EXPORTED int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return bad_device(ordinal);
}
EXPORTED int cuDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02X:00.0", 0x1b + 0x20 * device);
  return bad_device(device);
}
EXPORTED int cuDeviceGetByPCIBusId(int* device, const char* address) {
  for (*device = 0; bad_device(*device) == 0; ++*device) {
    char text[32];
    cuDeviceGetPCIBusId(text, sizeof text, *device);
    if (strcasecmp(text, address) == 0) return 0;
  }
  return kInvalidDevice;
}
EXPORTED int cuDeviceGetName(char* text, int length, int device) {
  std::snprintf(text, static_cast<std::size_t>(length), "Stand-in GPU");
  return bad_device(device);
}
EXPORTED int cuDeviceGetAttribute(int* value, int attribute, int device) {
  switch (attribute) {  // CUdevice_attribute
    case 16:
      *value = 132;
      break;
    case 36:
      *value = 2'619'000;
      break;
    case 37:
      *value = 5120;
      break;
    case 38:
      *value = 50 << 20;
      break;
    case 40:
      *value = 3;
      break;
    case 75:
      *value = static_cast<int>(from_environment("CWAI_FAKE_GPU_MAJOR", 9));
      break;
    case 76:
      *value = 0;
      break;
    case 116:
      *value = 1;
      break;
    case 117:
      *value = counts.flushable ? 1 : 0;
      break;
    case 118:
      *value = 0;
      break;
    case 124:
      *value = counts.dma_buf ? 1 : 0;
      break;
    default:
      return kInvalidValue;
  }
  return bad_device(device);
}
EXPORTED int cuDevicePrimaryCtxRetain(void** context, int device) {
  if (const int bad = bad_device(device)) return bad;
  ++counts.contexts;
  *context = &World::get().devices[static_cast<std::size_t>(device)];
  return 0;
}
EXPORTED int cuDevicePrimaryCtxRelease_v2(int) {
  --counts.contexts;
  return 0;
}
EXPORTED int cuCtxSetCurrent(void* context) {
  current = static_cast<Device*>(context);
  return 0;
}
EXPORTED int cuCtxGetDevice(int* device) {
  if (current == nullptr) return kInvalidContext;
  *device = current->number;
  return 0;
}
EXPORTED int cuDeviceCanAccessPeer(int* can, int device, int other) {
  *can = device == other ? 0 : 1;
  return bad_device(other);
}
EXPORTED int cuCtxEnablePeerAccess(void* context, unsigned) {
  if (current == nullptr) return kInvalidContext;
  return std::exchange(current->reached[static_cast<Device*>(context)->number], true) ? kPeerEnabled
                                                                                      : 0;
}

// ------------------------------------------------------------------------------------------ memory

EXPORTED int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  if (current == nullptr) return kInvalidContext;
  const std::lock_guard lock(World::get().mutex);
  *total = kMemory;
  *free = kMemory - current->used;
  return 0;
}
EXPORTED int cuMemAlloc_v2(void** pointer, std::size_t size) {
  return current == nullptr ? kInvalidContext : allocate(pointer, size, current->number);
}
EXPORTED int cuMemFree_v2(void* pointer) { return release(pointer, true); }
EXPORTED int cuMemHostAlloc(void** pointer, std::size_t size, unsigned) {
  return current == nullptr ? kInvalidContext : allocate(pointer, size, -1);
}
EXPORTED int cuMemFreeHost(void* pointer) { return release(pointer, false); }
EXPORTED int cuPointerGetAttribute(void* value, int attribute, const void* pointer) {
  const int device = place(pointer);
  if (device < 0) return kInvalidValue;
  switch (attribute) {  // CUpointer_attribute
    case 2:             // of memory: CU_MEMORYTYPE_DEVICE
      *static_cast<int*>(value) = 2;
      return 0;
    case 9:
      *static_cast<int*>(value) = device;
      return 0;
    default:
      return kInvalidValue;
  }
}
EXPORTED int cuMemcpyHtoD_v2(void* to, const void* from, std::size_t size) {
  if (current == nullptr) return kInvalidContext;
  if (place(to, size) < 0) return kInvalidValue;
  const auto* bytes = static_cast<const std::byte*>(from);
  default_stream().push([to, copy = std::vector<std::byte>(bytes, bytes + size)] {
    std::memcpy(to, copy.data(), copy.size());
  });
  return 0;
}
EXPORTED int cuMemcpyDtoH_v2(void* to, const void* from, std::size_t size) {
  if (current == nullptr) return kInvalidContext;
  if (place(from, size) < 0) return kInvalidValue;
  default_stream().wait();
  std::memcpy(to, from, size);
  return 0;
}
EXPORTED int cuMemsetD8_v2(void* pointer, unsigned char value, std::size_t size) {
  if (current == nullptr) return kInvalidContext;
  if (place(pointer, size) < 0) return kInvalidValue;
  default_stream().push([=] { std::memset(pointer, value, size); });
  return 0;
}
EXPORTED int cuMemGetHandleForAddressRange(void* handle, void* pointer, std::size_t size, int,
                                           unsigned long long) {
  if (place(pointer, size) < 0) return kInvalidValue;
  const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  std::memcpy(handle, &fd, sizeof fd);
  return 0;
}

EXPORTED int cuFlushGPUDirectRDMAWrites(int target, int scope) {
  if (current == nullptr) return kInvalidContext;
  if (target != 0 || scope != 100) return kInvalidValue;
  ++counts.flushes;
  return 0;
}

// ----------------------------------------------------------------------------------------- streams

EXPORTED int cuStreamCreate(void** stream, unsigned) {
  if (current == nullptr) return kInvalidContext;
  const std::lock_guard lock(World::get().mutex);
  *stream = new StreamHandle(new_stream(*current));
  ++counts.made;
  return 0;
}
EXPORTED int cuStreamDestroy_v2(void* stream) {
  stream_of(stream)->close();
  delete static_cast<StreamHandle*>(stream);
  --counts.made;
  return 0;
}
EXPORTED int cuStreamQuery(void* stream) {
  if (stream_of(stream)->recording()) return kCaptureUnsupported;
  return stream_of(stream)->idle() ? 0 : kNotReady;
}
EXPORTED int cuStreamSynchronize(void* stream) {
  if (current == nullptr) return kInvalidContext;
  if (stream == nullptr) {
    default_stream().wait();
    return 0;
  }
  if (stream_of(stream)->recording()) return kCaptureUnsupported;
  stream_of(stream)->wait();
  return 0;
}
EXPORTED int cuMemcpyAsync(void* to, const void* from, std::size_t size, void* stream) {
  stream_of(stream)->push([=] { std::memcpy(to, from, size); });
  return 0;
}
EXPORTED int cuMemsetD8Async(void* pointer, unsigned char value, std::size_t size, void* stream) {
  if (place(pointer, size) < 0) return kInvalidValue;
  stream_of(stream)->push([=] { std::memset(pointer, value, size); });
  return 0;
}
EXPORTED int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
  stream_of(stream)->push([=] { function(data); });
  return 0;
}

EXPORTED int cuEventCreate(void** event, unsigned) {
  if (current == nullptr) return kInvalidContext;
  *event = new EventHandle(std::make_shared<Event>());
  ++counts.made;
  return 0;
}
EXPORTED int cuEventDestroy_v2(void* event) {
  delete static_cast<EventHandle*>(event);
  --counts.made;
  return 0;
}
EXPORTED int cuEventRecord(void* handle, void* stream) {
  const EventHandle event = *static_cast<EventHandle*>(handle);
  std::uint64_t which = 0;
  {
    const std::lock_guard lock(event->mutex);
    which = ++event->asked;
  }
  stream_of(stream)->push([event, which] { event->happen(which); });
  return 0;
}
EXPORTED int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  Event& first = **static_cast<EventHandle*>(start);
  Event& second = **static_cast<EventHandle*>(end);
  const std::scoped_lock lock(first.mutex, second.mutex);
  if (first.asked == 0 || second.asked == 0) return kInvalidHandle;
  if (first.happened < first.asked || second.happened < second.asked) return kNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(second.at - first.at).count();
  return 0;
}
EXPORTED int cuStreamWaitEvent(void* stream, void* handle, unsigned) {
  const EventHandle event = *static_cast<EventHandle*>(handle);
  std::uint64_t which = 0;
  {
    const std::lock_guard lock(event->mutex);
    which = event->asked;
  }
  stream_of(stream)->push([event, which] {
    std::unique_lock lock(event->mutex);
    event->changed.wait(lock, [&] { return event->happened >= which; });
  });
  return 0;
}

// ------------------------------------------------------------------------------------------ graphs

EXPORTED int cuStreamBeginCapture_v2(void* stream, int) {
  if (stream_of(stream)->recording()) return kCaptureUnsupported;
  stream_of(stream)->record();
  return 0;
}
EXPORTED int cuStreamIsCapturing(void* stream, int* status) {
  *status = stream_of(stream)->recording() ? 1 : 0;
  return 0;
}
EXPORTED int cuStreamEndCapture(void* stream, void** graph) {
  auto recorded = stream_of(stream)->recorded();
  if (!recorded) return kInvalidValue;
  *graph = recorded.release();
  ++counts.made;
  return 0;
}
EXPORTED int cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
  *ready = new Graph(*static_cast<Graph*>(graph));
  ++counts.made;
  return 0;
}
EXPORTED int cuGraphLaunch(void* ready, void* stream) {
  stream_of(stream)->push([graph = *static_cast<Graph*>(ready)] {
    for (const Work& work : graph) work();
  });
  return 0;
}
EXPORTED int cuGraphDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  --counts.made;
  return 0;
}
EXPORTED int cuGraphExecDestroy(void* ready) {
  delete static_cast<Graph*>(ready);
  --counts.made;
  return 0;
}

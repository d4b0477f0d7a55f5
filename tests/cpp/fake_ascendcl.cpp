// A libascendcl without NPUs. Streams are threads, so what is queued is truly done later; memory of
// an NPU is memory of this process that is known to be one's, and pointers that are not are
// refused. A device must have been set in the thread that calls.
//
// Environment:
//   CWAI_FAKE_NPUS=8         how many NPUs there are; 0: as without a driver
//   CWAI_FAKE_SOC            as aclrtGetSocName gives it (Ascend910B3)
//
// Built with CWAI_OLD it has no aclrtStreamAbort.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "fake_ascend.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

// aclError
constexpr int kSuccess = 0, kInvalidParameter = 100000, kInitialisedBefore = 100002,
              kInvalidDevice = 107001, kNoContext = 107002, kAborted = 107020, kNoDriver = 507008;

FakeAscend counts;
thread_local int current = -1;
thread_local std::string words;

long devices() {
  const char* value = std::getenv("CWAI_FAKE_NPUS");
  return value == nullptr ? 8 : std::strtol(value, nullptr, 10);
}

// What is queued and the thread that does it, which holds on to it.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  static std::shared_ptr<Stream> started() {
    auto stream = std::make_shared<Stream>();
    std::thread([stream] { stream->run(); }).detach();
    return stream;
  }
  void push(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    if (aborted_) return;
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
  void abort() {
    const std::lock_guard lock(mutex_);
    aborted_ = true;  // what waits sees it, and does nothing
  }
  bool aborted() {
    const std::lock_guard lock(mutex_);
    return aborted_;
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const auto work = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      work();
      lock.lock();
      --pending_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  std::size_t pending_ = 0;
  bool closed_ = false, aborted_ = false;
};

struct Event {
  std::mutex mutex;
  std::chrono::steady_clock::time_point happened;
};

// All that is there, by its handle. Never taken down: threads may outlive main.
struct Things {
  std::mutex mutex;
  std::map<const std::byte*, std::size_t> memory;
  std::map<void*, std::shared_ptr<Stream>> streams;
  std::map<void*, std::shared_ptr<Event>> events;
  bool initialised = false;
};
Things& things() {
  static Things& all = *new Things;
  return all;
}

std::shared_ptr<Stream> stream_of(void* handle) {
  const std::lock_guard lock(things().mutex);
  const auto found = things().streams.find(handle);
  return found == things().streams.end() ? nullptr : found->second;
}
std::shared_ptr<Event> event_of(void* handle) {
  const std::lock_guard lock(things().mutex);
  const auto found = things().events.find(handle);
  return found == things().events.end() ? nullptr : found->second;
}

int refuse(int code, const char* why) {
  words = why;
  return code;
}
int no_context() { return refuse(kNoContext, "EE1001: no device is set in this thread"); }

}  // namespace

EXPORTED const int cwai_stand_in = 1;

EXPORTED FakeAscend* fake_ascend() { return &counts; }
EXPORTED bool fake_ascend_owns(const void* data, std::size_t bytes) {
  const auto* first = static_cast<const std::byte*>(data);
  const std::lock_guard lock(things().mutex);
  auto after = things().memory.upper_bound(first);
  if (after == things().memory.begin()) return false;
  --after;
  return first + bytes <= after->first + after->second;
}
EXPORTED bool fake_ascend_aborted(void* stream) {
  const auto found = stream_of(stream);
  return found == nullptr || found->aborted();
}
EXPORTED int fake_ascend_current() { return current; }
EXPORTED void fake_ascend_says(const char* said) { words = said; }
EXPORTED void fake_ascend_queue(void* stream, void (*work)(void*), void* data) {
  stream_of(stream)->push([work, data] { work(data); });
}

EXPORTED int aclInit(const char*) {
  const std::lock_guard lock(things().mutex);
  if (devices() == 0) return refuse(kNoDriver, "EE9999: the driver is not there");
  return std::exchange(things().initialised, true) ? kInitialisedBefore : kSuccess;
}
EXPORTED const char* aclGetRecentErrMsg() {
  static thread_local std::string said;
  said = std::exchange(words, "");
  return said.empty() ? nullptr : said.c_str();
}
EXPORTED const char* aclrtGetSocName() {
  const char* value = std::getenv("CWAI_FAKE_SOC");
  return value == nullptr ? "Ascend910B3" : value;
}
EXPORTED int aclrtGetDeviceCount(std::uint32_t* count) {
  if (devices() == 0) return kNoDriver;
  *count = static_cast<std::uint32_t>(devices());
  return kSuccess;
}
EXPORTED int aclrtSetDevice(std::int32_t device) {
  if (device < 0 || device >= devices())
    return refuse(kInvalidDevice, "EE1001: there is no such device");
  current = device;
  return kSuccess;
}

EXPORTED int aclrtMalloc(std::byte** out, std::size_t bytes, int) {
  if (current < 0) return no_context();
  auto* data = static_cast<std::byte*>(std::malloc(bytes));
  const std::lock_guard lock(things().mutex);
  things().memory[data] = bytes;
  ++counts.allocated;
  *out = data;
  return kSuccess;
}
EXPORTED int aclrtFree(std::byte* data) {
  const std::lock_guard lock(things().mutex);
  if (things().memory.erase(data) == 0) return kInvalidParameter;
  --counts.allocated;
  std::free(data);
  return kSuccess;
}
EXPORTED int aclrtMemcpy(std::byte* to, std::size_t room, const std::byte* from, std::size_t bytes,
                         int kind) {
  if (current < 0) return no_context();
  const bool sound = kind == 1   ? fake_ascend_owns(to, bytes)
                     : kind == 2 ? fake_ascend_owns(from, bytes)
                                 : false;
  if (!sound || bytes > room)
    return refuse(kInvalidParameter, "EH0001: not the memory of a device");
  std::memcpy(to, from, bytes);
  return kSuccess;
}
EXPORTED int aclrtMemset(std::byte* to, std::size_t room, std::int32_t value, std::size_t bytes) {
  if (current < 0) return no_context();
  if (bytes > room || !fake_ascend_owns(to, bytes)) return kInvalidParameter;
  std::memset(to, value, bytes);
  return kSuccess;
}

EXPORTED int aclrtCreateStream(void** out) {
  if (current < 0) return no_context();
  auto stream = Stream::started();
  *out = stream.get();
  const std::lock_guard lock(things().mutex);
  things().streams[*out] = std::move(stream);
  ++counts.made;
  return kSuccess;
}
EXPORTED int aclrtDestroyStream(void* handle) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return kInvalidParameter;
  stream->wait();
  stream->close();
  const std::lock_guard lock(things().mutex);
  things().streams.erase(handle);
  --counts.made;
  return kSuccess;
}
EXPORTED int aclrtStreamQuery(void* handle, int* status) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return kInvalidParameter;
  *status = stream->idle() ? 0 : 1;
  return kSuccess;
}
EXPORTED int aclrtSynchronizeStream(void* handle) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return kInvalidParameter;
  stream->wait();
  return stream->aborted() ? kAborted : kSuccess;
}
#ifndef CWAI_OLD
EXPORTED int aclrtStreamAbort(void* handle) {
  const auto stream = stream_of(handle);
  if (stream == nullptr) return kInvalidParameter;
  stream->abort();
  return kSuccess;
}
#endif

EXPORTED int aclrtCreateEvent(void** out) {
  if (current < 0) return no_context();
  auto event = std::make_shared<Event>();
  *out = event.get();
  const std::lock_guard lock(things().mutex);
  things().events[*out] = std::move(event);
  ++counts.made;
  return kSuccess;
}
EXPORTED int aclrtDestroyEvent(void* handle) {
  const std::lock_guard lock(things().mutex);
  if (things().events.erase(handle) == 0) return kInvalidParameter;
  --counts.made;
  return kSuccess;
}
EXPORTED int aclrtRecordEvent(void* handle, void* on) {
  const auto event = event_of(handle);
  const auto stream = stream_of(on);
  if (event == nullptr || stream == nullptr) return kInvalidParameter;
  stream->push([event] {
    const std::lock_guard lock(event->mutex);
    event->happened = std::chrono::steady_clock::now();
  });
  return kSuccess;
}
EXPORTED int aclrtEventElapsedTime(float* milliseconds, void* start, void* end) {
  const auto first = event_of(start), last = event_of(end);
  if (first == nullptr || last == nullptr) return kInvalidParameter;
  const std::scoped_lock lock(first->mutex, last->mutex);
  *milliseconds =
      std::chrono::duration<float, std::milli>(last->happened - first->happened).count();
  return kSuccess;
}

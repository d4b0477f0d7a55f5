#include "device/ascend.hpp"

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>

#include "support/error.hpp"

namespace cwai {
namespace {

// aclError, aclrtMemMallocPolicy, aclrtMemcpyKind, aclrtStreamStatus
constexpr int kSuccess = 0, kInitialisedBefore = 100002, kHugeFirst = 0, kToDevice = 1, kToHost = 2,
              kComplete = 0;

struct Runtime {
  explicit Runtime(const std::string& neighbour)
      : library(ascend_library("libascendcl.so", "", neighbour)) {}

  DynamicLibrary library;
  int (*init)(const char*) = take<int(const char*)>("aclInit");
  int (*count)(std::uint32_t*) = take<int(std::uint32_t*)>("aclrtGetDeviceCount");
  int (*set_device)(std::int32_t) = take<int(std::int32_t)>("aclrtSetDevice");
  int (*allocate)(std::byte**, std::size_t,
                  int) = take<int(std::byte**, std::size_t, int)>("aclrtMalloc");
  int (*free)(std::byte*) = take<int(std::byte*)>("aclrtFree");
  int (*copy)(std::byte*, std::size_t, const std::byte*, std::size_t, int) =
      take<int(std::byte*, std::size_t, const std::byte*, std::size_t, int)>("aclrtMemcpy");
  int (*fill)(std::byte*, std::size_t, std::int32_t, std::size_t) =
      take<int(std::byte*, std::size_t, std::int32_t, std::size_t)>("aclrtMemset");
  int (*stream)(void**) = take<int(void**)>("aclrtCreateStream");
  int (*end_stream)(void*) = take<int(void*)>("aclrtDestroyStream");
  int (*query)(void*, int*) = take<int(void*, int*)>("aclrtStreamQuery");
  int (*synchronize)(void*) = take<int(void*)>("aclrtSynchronizeStream");
  int (*event)(void**) = take<int(void**)>("aclrtCreateEvent");
  int (*end_event)(void*) = take<int(void*)>("aclrtDestroyEvent");
  int (*record)(void*, void*) = take<int(void*, void*)>("aclrtRecordEvent");
  int (*elapsed)(float*, void*, void*) = take<int(float*, void*, void*)>("aclrtEventElapsedTime");
  // What an old toolkit may lack.
  const char* (*name)() = library.find<const char*()>("aclrtGetSocName");
  int (*abort)(void*) = library.find<int(void*)>("aclrtStreamAbort");
  const char* (*words)() = library.find<const char*()>("aclGetRecentErrMsg");

  // Another user of the runtime in this process may have been first.
  const int started = init(nullptr);

 private:
  template <typename Function>
  Function* take(const char* symbol) const {
    return library.function<Function>(symbol);
  }
};

// Opened once, and never let go.
const Runtime& loaded(const std::string& neighbour = "") {
  static std::mutex mutex;
  static const Runtime* runtime = nullptr;
  const std::lock_guard lock(mutex);
  if (runtime == nullptr) runtime = std::make_unique<const Runtime>(neighbour).release();
  return *runtime;
}

void check(int result, const std::string& what) {
  if (result == kSuccess) [[likely]]
    return;
  const std::string words = npu_words();
  throw Error(Fault::kDevice, what, 0,
              "ACL error " + std::to_string(result) + (words.empty() ? "" : ": " + words));
}

const Runtime& runtime() {
  const Runtime& found = loaded();
  if (found.started != kInitialisedBefore) check(found.started, "aclInit");
  return found;
}

}  // namespace

DynamicLibrary ascend_library(const std::string& name, const std::string& given,
                              const std::string& neighbour) {
  std::vector<std::string> tried;
  if (!given.empty()) {
    tried.push_back(given);
  } else {
    if (!neighbour.empty())
      tried.push_back((std::filesystem::path(neighbour).parent_path() / name).string());
    tried.push_back(name);
    if (const char* home = std::getenv("ASCEND_HOME_PATH"))
      tried.push_back((std::filesystem::path(home) / "lib64" / name).string());
  }
  std::exception_ptr first;
  for (const std::string& place : tried) {
    try {
      return DynamicLibrary::open(place);
    } catch (const Error&) {
      if (!first) first = std::current_exception();
    }
  }
  std::rethrow_exception(first);
}

std::string npu_words() {
  const Runtime& found = loaded();
  const char* said = found.words != nullptr ? found.words() : nullptr;
  return said != nullptr ? said : "";
}

bool abort_npu_stream(void* stream) noexcept {
  try {
    return runtime().abort != nullptr && runtime().abort(stream) == kSuccess;
  } catch (const Error&) {
    return false;
  }
}

// --------------------------------------------------------------------------------------------- Npu

void Npu::open(const std::string& neighbour) { loaded(neighbour); }

int Npu::count() {
  // Without a driver the runtime does not start, or counts with an error.
  std::uint32_t found = 0;
  const int started = loaded().started;
  const bool running = started == kSuccess || started == kInitialisedBefore;
  return running && loaded().count(&found) == kSuccess ? static_cast<int>(found) : 0;
}

Npu::Npu(int ordinal) : ordinal_(ordinal) { enter(); }

void Npu::enter() const {
  check(runtime().set_device(ordinal_), "NPU " + std::to_string(ordinal_));
}

std::string Npu::name() {
  const char* said = loaded().name != nullptr ? loaded().name() : nullptr;
  return said != nullptr ? said : "";
}

NpuKind Npu::kind() {
  const std::string soc = name();
  const auto begins = [&soc](const char* with) { return soc.rfind(with, 0) == 0; };
  if (begins("Ascend910B") || begins("Ascend910_93")) return NpuKind::kSecond;
  if (begins("Ascend310") || (begins("Ascend910") && !begins("Ascend910_95")))
    return NpuKind::kFirst;
  return NpuKind::kThird;
}

void Npu::write(std::byte* to, std::span<const std::byte> from) const {
  enter();
  check(runtime().copy(to, from.size(), from.data(), from.size(), kToDevice), "aclrtMemcpy");
}

void Npu::read(std::span<std::byte> to, const std::byte* from) const {
  enter();
  check(runtime().copy(to.data(), to.size(), from, to.size(), kToHost), "aclrtMemcpy");
}

void Npu::fill(std::byte* to, std::uint8_t value, std::size_t bytes) const {
  enter();
  check(runtime().fill(to, bytes, value, bytes), "aclrtMemset");
}

// --------------------------------------------------------------------- memory, streams and events

NpuMemory::NpuMemory(const Npu& npu, std::size_t bytes) : npu_(npu) {
  npu_.enter();
  check(runtime().allocate(&data_, bytes, kHugeFirst), std::to_string(bytes) + " B");
  try {
    npu_.fill(data_, 0, bytes);
  } catch (...) {
    runtime().free(data_);
    throw;
  }
}

NpuMemory::~NpuMemory() {
  loaded().set_device(npu_.ordinal());
  loaded().free(data_);
}

NpuStream::NpuStream(const Npu& npu) : npu_(npu) {
  npu_.enter();
  check(runtime().stream(&handle_), "aclrtCreateStream");
}

NpuStream::~NpuStream() {
  loaded().set_device(npu_.ordinal());
  loaded().end_stream(handle_);
}

bool NpuStream::done() const {
  npu_.enter();
  int status = kComplete;
  check(runtime().query(handle_, &status), "aclrtStreamQuery");
  if (status != kComplete) return false;
  // That a task failed is told by this call alone; it does not wait any more.
  check(runtime().synchronize(handle_), "aclrtSynchronizeStream");
  return true;
}

NpuEvent::NpuEvent(const Npu& npu) : npu_(npu) {
  npu_.enter();
  check(runtime().event(&handle_), "aclrtCreateEvent");
}

NpuEvent::~NpuEvent() {
  loaded().set_device(npu_.ordinal());
  loaded().end_event(handle_);
}

void NpuEvent::record(const NpuStream& stream) const {
  npu_.enter();
  check(runtime().record(handle_, stream.handle()), "aclrtRecordEvent");
}

double NpuEvent::since(const NpuEvent& start) const {
  npu_.enter();
  float milliseconds = 0;
  check(runtime().elapsed(&milliseconds, start.handle_, handle_), "aclrtEventElapsedTime");
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace cwai

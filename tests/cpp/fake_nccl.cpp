// A libnccl without GPUs, for the ranks of one machine. It keeps NCCL's binary interface, works on
// the CPU on memory of the fake libcuda (fake_cuda.cpp), in streams as NCCL does, and passes data
// between processes through shared memory. All types and reductions; none of the speed.
//
// Environment. A number that follows an @ is of the rank before it; operations count from 1, by
// rank, what stands in one group of sends and receives being one.
//   CWAI_FAKE_NCCL          words, any of:
//     wrong=R@I             element I of all that rank R receives has one bit turned over
//     late=R@U              rank R begins every operation U microseconds late
//     hang=R@N              rank R never gets out of its operation N, until it is aborted
//     crash=R@N             rank R's process is killed in its operation N
//     error=R@N             in operation N rank R has an asynchronous error and goes no further
//     absent=R              rank R does not come to the start as long as this is set
//     refuse=R              rank R refuses to start, which the others notice
//   CWAI_FAKE_NCCL_VERSION  as ncclGetVersion gives it: 22703, or 2804 for 2.8.4
//   CWAI_FAKE_NCCL_LINE     the version line in the log, whole
//   CWAI_FAKE_NCCL_NET      what the log says of the network: IB (default), IB/noGDR, Socket, none
//   CWAI_FAKE_NCCL_NVLS     1: NVLS is there and used
//   CWAI_FAKE_NCCL_COLLNET  1: CollNet (SHARP) is there, and used unless the caller turned it off
// NCCL_DEBUG, NCCL_DEBUG_FILE and NCCL_DEBUG_SUBSYS work as they do in NCCL (src/debug.cc).
//
// Built with CWAI_OLD it is NCCL 2.8.4: what came later is not there. Built with CWAI_FORK it is
// one of NCCL's children, which bear a version of their own.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fake_collective.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using namespace cwai_test;

// ncclResult_t
constexpr int kSuccess = 0, kCudaError = 1, kSystemError = 2, kInvalidArgument = 4,
              kInvalidUsage = 5, kRemoteError = 6;

// The line is a literal, for it is read in the file as well.
#if defined(CWAI_OLD)
constexpr int kVersion = 2804, kTypes = 9, kReductions = 4;
constexpr const char* kLine = "NCCL version 2.8.4+cuda11.2";
#elif defined(CWAI_FORK)
constexpr int kVersion = 21904, kTypes = 10, kReductions = 5;
constexpr const char* kLine = "CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2";
#else
constexpr int kVersion = 22703, kTypes = 12, kReductions = 5;
constexpr const char* kLine = "NCCL version 2.27.3+cuda12.9";
#endif

const char* setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

int version() {
  const char* given = std::getenv("CWAI_FAKE_NCCL_VERSION");
  return given == nullptr ? kVersion : std::atoi(given);
}

// ------------------------------------------------------------------------------------------- asked

/// The number after ``word=RANK@``; -1 where nothing of the kind is asked of this rank.
long asked(const char* word, int rank) {
  return cwai_test::asked(setting("CWAI_FAKE_NCCL", ""), word, rank);
}

// --------------------------------------------------------------------------------------------- log

class Log {
 public:
  enum Level { kNone, kVersionOnly, kWarn, kInfo };

  static Log& get() {
    static Log& log = *new Log;
    return log;
  }

  Level level() const { return level_; }

  __attribute__((format(printf, 3, 4))) void info(const char* part, const char* format, ...) {
    if (level_ < kInfo || !shows(part)) return;
    std::va_list arguments;
    va_start(arguments, format);
    say("NCCL INFO ", format, arguments);
    va_end(arguments);
  }
  __attribute__((format(printf, 2, 3))) void warn(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    {
      const std::lock_guard lock(mutex_);
      std::va_list again;
      va_copy(again, arguments);
      std::vsnprintf(last_error, sizeof last_error, format, again);
      va_end(again);
    }
    if (level_ >= kWarn) say("NCCL WARN ", format, arguments);
    va_end(arguments);
  }
  void version_line() {
    const char* const line = setting("CWAI_FAKE_NCCL_LINE", kLine);
    if (level_ == kVersionOnly || level_ == kWarn) {
      std::fprintf(file_, "%s\n", line);
      std::fflush(file_);
    } else {
      info("INIT", "%s", line);
    }
  }

  char last_error[1024] = "";

 private:
  Log() {
    const std::string wanted = setting("NCCL_DEBUG", "");
    const auto is = [&](const char* name) { return strcasecmp(wanted.c_str(), name) == 0; };
    level_ = is("VERSION")               ? kVersionOnly
             : is("WARN")                ? kWarn
             : is("INFO") || is("TRACE") ? kInfo
                                         : kNone;
    parts_.append(",").append(setting("NCCL_DEBUG_SUBSYS", "INIT,BOOTSTRAP,ENV")).append(",");
    gethostname(host_, sizeof host_ - 1);
    host_[std::strcspn(host_, ".")] = '\0';
    const char* path = std::getenv("NCCL_DEBUG_FILE");
    if (level_ <= kVersionOnly || path == nullptr) return;
    std::string name;
    for (const char* c = path; *c != '\0'; ++c) {
      if (*c == '%' && c[1] == 'h') {
        name += host_;
        ++c;
      } else if (*c == '%' && c[1] == 'p') {
        name += std::to_string(getpid());
        ++c;
      } else {
        name += *c;
      }
    }
    if (FILE* opened = std::fopen(name.c_str(), "w")) file_ = opened;
  }

  bool shows(const char* part) const {
    const std::string wanted = std::string(",").append(part).append(",");
    return parts_ == ",ALL," || parts_.find(wanted) != std::string::npos;
  }
  void say(const char* kind, const char* format, std::va_list arguments) {
    char text[1024];
    std::vsnprintf(text, sizeof text, format, arguments);
    const std::lock_guard lock(mutex_);
    std::fprintf(file_, "%s:%d:%ld [%d] %s%s\n", host_, getpid(), syscall(SYS_gettid), 0, kind,
                 text);
    std::fflush(file_);
  }

  Level level_ = kNone;
  std::string parts_;
  char host_[256] = "";
  FILE* file_ = stdout;
  std::mutex mutex_;
};

// -------------------------------------------------------------------------------------------- CUDA

// The one that the caller has loaded.
struct Cuda {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  int (*device)(int*) = symbol<int(int*)>("cuCtxGetDevice");
  int (*pci)(char*, int, int) = symbol<int(char*, int, int)>("cuDeviceGetPCIBusId");
  int (*attribute)(void*, int,
                   const void*) = symbol<int(void*, int, const void*)>("cuPointerGetAttribute");
  int (*call)(void*, void (*)(void*),
              void*) = symbol<int(void*, void (*)(void*), void*)>("cuLaunchHostFunc");
  int (*capturing)(void*, int*) = symbol<int(void*, int*)>("cuStreamIsCapturing");
  int (*allocate)(void**, std::size_t) = symbol<int(void**, std::size_t)>("cuMemAlloc_v2");
  int (*free)(void*) = symbol<int(void*)>("cuMemFree_v2");

  static const Cuda& get() {
    static const Cuda cuda;
    return cuda;
  }

 private:
  template <typename Function>
  Function* symbol(const char* name) const {
    return library == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(library, name));
  }
};

bool on_gpu(const void* pointer) {
  int type = 0;
  return Cuda::get().attribute(&type, 2, pointer) == 0 && type == 2;
}

// ----------------------------------------------------------------------------------------- numbers

constexpr std::array<std::size_t, 12> kSizes = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

void reduce(const std::vector<std::vector<std::byte>>& parts, std::byte* out, std::size_t count,
            int type, int op, double factor) {
  switch (type) {
    case 0:
      return reduce_as<std::int8_t>(parts, out, count, op, factor);
    case 1:
      return reduce_as<std::uint8_t>(parts, out, count, op, factor);
    case 2:
      return reduce_as<std::int32_t>(parts, out, count, op, factor);
    case 3:
      return reduce_as<std::uint32_t>(parts, out, count, op, factor);
    case 4:
      return reduce_as<std::int64_t>(parts, out, count, op, factor);
    case 5:
      return reduce_as<std::uint64_t>(parts, out, count, op, factor);
    case 6:
      return reduce_as<SmallFloat<16, 10, 15>>(parts, out, count, op, factor);
    case 7:
      return reduce_as<float>(parts, out, count, op, factor);
    case 8:
      return reduce_as<double>(parts, out, count, op, factor);
    case 9:
      return reduce_as<SmallFloat<16, 7, 127>>(parts, out, count, op, factor);
    case 10:
      return reduce_as<SmallFloat<8, 3, 7>>(parts, out, count, op, factor);
    default:
      return reduce_as<SmallFloat<8, 2, 15>>(parts, out, count, op, factor);
  }
}

// ----------------------------------------------------------------------------------- shared memory

struct Segment {
  std::array<std::atomic<int>, kMostRanks> versions;  // 0: not here yet
  std::atomic<int> met;
  std::atomic<bool> refused;
  std::array<std::array<Box, kMostRanks>, kMostRanks> boxes;  // from, to
};

// Segments that this process made and that not all ranks have found yet.
std::vector<std::string>& made_here() {
  static std::vector<std::string>& names = *new std::vector<std::string>;
  return names;
}
__attribute__((destructor)) void unlink_segments() {
  for (const std::string& name : made_here()) shm_unlink(name.c_str());
}

// ----------------------------------------------------------------------------------- communicators

struct UniqueId {
  std::array<char, 128> name;
};

struct Config {  // as far as it is looked at
  std::size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, min_ctas, max_ctas;
  const char* net_name;
  int split_share, traffic_class;
  const char* comm_name;
  int collnet_enable;
};

struct Comm {
  Segment* segment = nullptr;
  std::string name;
  int rank = 0, size = 0, device = 0;
  bool collnet = false;
  std::atomic<bool> aborted{false};
  std::atomic<int> error{kSuccess};
  std::atomic<int> running{0};
  long operations = 0;                             // counted in the stream
  std::vector<std::pair<int, double>> premulsums;  // type and factor

  Box& box(int from, int to) const {
    return segment->boxes[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
  }
};

// Of all that it made none is ever let go: an operation may still stand in a stream.
Comm* new_comm() {
  static std::mutex& mutex = *new std::mutex;
  static auto& all = *new std::vector<std::unique_ptr<Comm>>;
  const std::lock_guard lock(mutex);
  return all.emplace_back(std::make_unique<Comm>()).get();
}

// -------------------------------------------------------------------------------------- operations

enum class Kind { kAllReduce, kReduce, kReduceScatter, kAllGather, kBroadcast, kSend, kReceive };

struct Operation {
  Kind kind;
  Comm* comm;
  void* stream;
  const std::byte* send;
  std::byte* receive;
  std::size_t count;
  int type, op, peer;  // the other rank, or the root
  double factor = 1;   // of premulsum

  std::size_t unit() const { return kSizes[static_cast<std::size_t>(type)]; }
  std::size_t bytes() const { return count * unit(); }
};

void run_collective(const Operation& o) {
  const Comm& comm = *o.comm;
  const auto combine = [&](bool takes, const auto& give) {
    cwai_test::combine(comm, o.bytes(), takes, give, [&](const auto& parts, std::size_t done) {
      reduce(parts, o.receive + done, parts[0].size() / o.unit(), o.type, o.op, o.factor);
    });
  };
  switch (o.kind) {
    case Kind::kAllReduce:
      return combine(true, [&](int) { return o.send; });
    case Kind::kReduce:
      return combine(comm.rank == o.peer,
                     [&](int rank) { return rank == o.peer ? o.send : nullptr; });
    case Kind::kReduceScatter:
      return combine(true,
                     [&](int rank) { return o.send + static_cast<std::size_t>(rank) * o.bytes(); });
    default:
      break;
  }
  std::vector<Out> outs;
  std::vector<In> ins;
  for (int rank = 0; rank < comm.size; ++rank) {
    if (o.kind == Kind::kAllGather) {
      outs.push_back({rank, o.send, o.bytes()});
      ins.push_back({rank, o.receive + static_cast<std::size_t>(rank) * o.bytes(), o.bytes()});
    } else if (comm.rank == o.peer) {
      outs.push_back({rank, o.send, o.bytes()});
    }
  }
  if (o.kind == Kind::kBroadcast) ins.push_back({o.peer, o.receive, o.bytes()});
  exchange(comm, std::move(outs), std::move(ins));
}

// What one call of the library queues: a collective, or the sends and receives of a group.
struct Batch {
  std::vector<Operation> operations;
  bool kept;  // recorded in a graph, so it may run again

  Comm& comm() const { return *operations.front().comm; }

  void run() const {
    Comm& c = comm();
    const long number = ++c.operations;
    const auto stuck = [&] { patiently([&] { return !c.aborted; }); };
    const long late = asked("late", c.rank);
    if (late > 0) usleep(static_cast<useconds_t>(late));
    if (asked("crash", c.rank) == number) kill(getpid(), SIGKILL);
    if (asked("error", c.rank) == number) {
      Log::get().warn(
          "NET/IB: Got completion from peer with status=IBV_WC_RETRY_EXC_ERR(12) opcode=0 len=0");
      c.error = kRemoteError;
      return stuck();
    }
    if (asked("hang", c.rank) == number) return stuck();
    if (operations.front().kind < Kind::kSend) {
      run_collective(operations.front());
    } else {
      std::vector<Out> outs;
      std::vector<In> ins;
      for (const Operation& o : operations) {
        if (o.kind == Kind::kSend) {
          outs.push_back({o.peer, o.send, o.bytes()});
        } else {
          ins.push_back({o.peer, o.receive, o.bytes()});
        }
      }
      exchange(c, std::move(outs), std::move(ins));
    }
    const long wrong = asked("wrong", c.rank);
    if (wrong >= 0) spoil(static_cast<std::size_t>(wrong));
  }

 private:
  // Elements are counted through all that arrived, in the order of the receives.
  void spoil(std::size_t index) const {
    for (const Operation& o : operations) {
      if (o.kind == Kind::kSend) continue;
      const bool got = o.kind != Kind::kReduce || comm().rank == o.peer;
      const std::size_t elements =
          !got ? 0
               : o.count * (o.kind == Kind::kAllGather ? static_cast<std::size_t>(comm().size) : 1);
      if (index < elements) {
        o.receive[index * o.unit()] ^= std::byte{1};
        return;
      }
      index -= elements;
    }
  }
};

int launch(std::vector<Operation> operations) {
  void* const stream = operations.front().stream;
  int capturing = 0;
  Cuda::get().capturing(stream, &capturing);
  const bool recorded = capturing != 0;
  auto* batch = new Batch{std::move(operations), recorded};
  if (recorded) {
    static std::mutex& mutex = *new std::mutex;
    static auto& all = *new std::vector<std::unique_ptr<Batch>>;
    const std::lock_guard lock(mutex);
    all.emplace_back(batch);
  }
  const int result = Cuda::get().call(
      stream,
      [](void* data) {
        auto* mine = static_cast<Batch*>(data);
        Comm& comm = mine->comm();
        ++comm.running;
        if (!comm.aborted) mine->run();
        --comm.running;
        if (!mine->kept) delete mine;
      },
      batch);
  return result == 0 ? kSuccess : kCudaError;
}

// ------------------------------------------------------------------------------------------ groups

struct Group {
  int depth = 0;
  int failed = kSuccess;
  std::vector<Operation> operations;
  std::vector<Comm*> starting;
};
thread_local Group group;

int meet(Comm& comm) {
  Log& log = Log::get();
  const int mine = version();
  Segment& segment = *comm.segment;
  const auto of = [&](int rank) {
    return segment.versions[static_cast<std::size_t>(rank)].load(std::memory_order_acquire);
  };
  int here = 0;
  patiently([&] {
    while (here < comm.size && of(here) != 0) ++here;
    return here < comm.size && !segment.refused;
  });
  if (here < comm.size) {
    log.warn("socketProgress: Connection closed by remote peer 10.0.0.2<42000>");
    return kRemoteError;
  }
  if (segment.met.fetch_add(1) + 1 == comm.size) shm_unlink(comm.name.c_str());
  for (int rank = 0; rank < comm.size; ++rank) {
    if (of(rank) == mine) continue;
    log.warn("Mismatched NCCL version detected : rank %d version %d rank %d version %d", rank,
             of(rank), comm.rank, mine);
    return kInvalidUsage;
  }

  char bus[32] = "";
  Cuda::get().pci(bus, sizeof bus, comm.device);
  const std::string net = setting("CWAI_FAKE_NCCL_NET", "IB");
  const bool gdr = net == "IB";
  const bool nvls = std::atoi(setting("CWAI_FAKE_NCCL_NVLS", "0")) != 0;
  if (comm.rank == 0) log.version_line();
  for (const char* name : {"NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "NCCL_ALGO", "NCCL_COLLNET_ENABLE",
                           "NCCL_NVLS_ENABLE", "NCCL_IB_QPS_PER_CONNECTION"})
    if (const char* value = std::getenv(name))
      log.info("ENV", "%s set by environment to %s.", name, value);
  if (net.starts_with("IB")) {
    log.info("INIT", "NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:10.0.0.%d<0>",
             comm.rank + 1);
  } else {
    log.info("INIT", "NET/IB : No device found.");
    log.info("INIT", "NET/Socket : Using [0]eth0:10.0.0.%d<0>", comm.rank + 1);
  }
  if (net != "none") log.info("INIT", "Using network %s", net.starts_with("IB") ? "IB" : "Socket");
  log.info("INIT",
           "ncclCommInitRank comm %p rank %d nranks %d cudaDev %d nvmlDev %d busId %s - "
           "Init START",
           static_cast<void*>(&comm), comm.rank, comm.size, comm.device, comm.device, bus);
  log.info("INIT", "NVLS multicast support is %savailable on dev %d (NVLS_NCHANNELS %d)",
           nvls ? "" : "not ", comm.device, nvls ? 16 : 0);
  const int next = (comm.rank + 1) % comm.size;
  if (comm.size > 1 && net == "none") {
    log.info("INIT", "Channel 00/0 : %d[%d] -> %d[%d] via P2P/CUMEM", comm.rank, comm.device, next,
             comm.device);
  } else if (comm.size > 1) {
    log.info("INIT", "Channel 00/0 : %d[%d] -> %d[%d] [send] via NET/%s/0%s", comm.rank,
             comm.device, next, comm.device, net.starts_with("IB") ? "IB" : "Socket",
             gdr ? "/GDRDMA" : "");
  }
  if (comm.collnet) {
    log.info("INIT", "CollNet 00/0 : %d [send] via COLLNET/SHARP/0/GDRDMA", comm.rank);
    log.info("INIT", "rank %d Connected CollNet", comm.rank);
  }
  log.info("INIT",
           "ncclCommInitRank comm %p rank %d nranks %d cudaDev %d nvmlDev %d busId %s - "
           "Init COMPLETE",
           static_cast<void*>(&comm), comm.rank, comm.size, comm.device, comm.device, bus);
  return kSuccess;
}

int begin(void** out, int size, const UniqueId& id, int rank, const Config* config) {
  Log& log = Log::get();
  int device = 0;
  if (size < 1 || size > kMostRanks || rank < 0 || rank >= size) {
    log.warn("Invalid rank requested : %d/%d", rank, size);
    return kInvalidArgument;
  }
  if (config != nullptr && config->magic != 0xcafebeef) {
    log.warn("ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER");
    return kInvalidArgument;
  }
  if (Cuda::get().device == nullptr || Cuda::get().device(&device) != 0) {
    log.warn("Cuda failure 'invalid device context'");
    return kCudaError;
  }
  const int fd = shm_open(id.name.data(), O_RDWR, 0600);
  void* mapped = fd < 0 ? MAP_FAILED
                        : mmap(nullptr, sizeof(Segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (mapped == MAP_FAILED) {
    log.warn("Error: no segment %s", id.name.data());
    return kSystemError;
  }
  auto* segment = static_cast<Segment*>(mapped);
  const bool absent = asked("absent", rank) >= 0;
  patiently([rank] { return asked("absent", rank) >= 0; });
  if (absent || asked("refuse", rank) >= 0) {
    segment->refused = true;
    log.warn(
        "socketStartConnect: Connect to 10.0.0.1<42000> failed : Software caused connection abort");
    return kSystemError;
  }
  Comm* comm = new_comm();
  comm->segment = segment;
  comm->name = id.name.data();
  comm->rank = rank;
  comm->size = size;
  comm->device = device;
  const bool has = config != nullptr && config->version >= 22700;
  comm->collnet = std::atoi(setting("CWAI_FAKE_NCCL_COLLNET", "0")) != 0 &&
                  !(has && config->collnet_enable == 0);
  *out = comm;
  comm->segment->versions[static_cast<std::size_t>(rank)].store(version(),
                                                                std::memory_order_release);
  group.starting.push_back(comm);
  return kSuccess;
}

int end_of_group() {
  Group mine = std::exchange(group, Group{});
  if (mine.failed != kSuccess) return mine.failed;
  for (Comm* comm : mine.starting)
    if (const int result = meet(*comm)) return result;
  // Sends and receives of a communicator together, where the first of them stands.
  std::vector<Operation>& all = mine.operations;
  std::vector<bool> done(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (done[i]) continue;
    std::vector<Operation> batch{all[i]};
    for (std::size_t j = i + 1; all[i].kind >= Kind::kSend && j < all.size(); ++j) {
      if (all[j].kind < Kind::kSend || all[j].comm != all[i].comm) continue;
      batch.push_back(all[j]);
      done[j] = true;
    }
    if (const int result = launch(std::move(batch))) return result;
  }
  return kSuccess;
}

// A call outside of a group is a group of one.
template <typename Body>
int grouped(Body&& body) {
  ++group.depth;
  const int result = body();
  if (result != kSuccess && group.failed == kSuccess) group.failed = result;
  if (--group.depth > 0) return result;
  const int ended = end_of_group();
  return result != kSuccess ? result : ended;
}

int add(Operation o) {
  return grouped([&] {
    Log& log = Log::get();
    if (o.comm == nullptr || o.comm->aborted) {
      log.warn("comm argument is not usable");
      return kInvalidArgument;
    }
    if (o.type < 0 || o.type >= kTypes) {
      log.warn("invalid type %d", o.type);
      return kInvalidArgument;
    }
    if (o.peer < 0 || o.peer >= o.comm->size) {
      log.warn("invalid root or peer %d (size %d)", o.peer, o.comm->size);
      return kInvalidArgument;
    }
    if (o.kind <= Kind::kReduceScatter && (o.op < 0 || o.op >= kReductions)) {
      const auto made = static_cast<std::size_t>(std::max(o.op - kReductions, 0));
      if (o.op < 0 || made >= o.comm->premulsums.size() ||
          o.comm->premulsums[made].first != o.type) {
        log.warn("invalid reduction operation %d", o.op);
        return kInvalidArgument;
      }
      o.op = kSum;
      o.factor = o.comm->premulsums[made].second;
    }
    const bool receives =
        o.kind != Kind::kSend && (o.kind != Kind::kReduce || o.comm->rank == o.peer);
    const bool sends =
        o.kind != Kind::kReceive && (o.kind != Kind::kBroadcast || o.comm->rank == o.peer);
    if (o.count > 0 && ((sends && !on_gpu(o.send)) || (receives && !on_gpu(o.receive)))) {
      log.warn("pointer is not a valid device pointer");
      return kInvalidArgument;
    }
    if (o.count > 0) group.operations.push_back(o);
    return kSuccess;
  });
}

Operation operation(Kind kind, const void* send, void* receive, std::size_t count, int type, int op,
                    int peer, void* comm, void* stream) {
  return {kind,
          static_cast<Comm*>(comm),
          stream,
          static_cast<const std::byte*>(send),
          static_cast<std::byte*>(receive),
          count,
          type,
          op,
          peer};
}

}  // namespace

// A report must say that it comes from a stand-in.
EXPORTED const int cwai_stand_in = 1;

EXPORTED int ncclGetVersion(int* out) {
  *out = version();
  return kSuccess;
}
EXPORTED const char* ncclGetErrorString(int result) {
  switch (result) {
    case kSuccess:
      return "no error";
    case kCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case kSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case kInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case kInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case kRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "unknown result code";
  }
}
EXPORTED int ncclGetUniqueId(UniqueId* id) {
  static std::atomic<int> count{0};
  std::snprintf(id->name.data(), id->name.size(), "/cwai-fake-nccl-%d-%d", getpid(), ++count);
  const int fd = shm_open(id->name.data(), O_CREAT | O_EXCL | O_RDWR, 0600);
  if (fd < 0) return kSystemError;
  const bool sized = ftruncate(fd, sizeof(Segment)) == 0;
  close(fd);
  made_here().emplace_back(id->name.data());
  return sized ? kSuccess : kSystemError;
}
EXPORTED int ncclCommInitRank(void** comm, int size, UniqueId id, int rank) {
  return grouped([&] { return begin(comm, size, id, rank, nullptr); });
}
EXPORTED int ncclCommGetAsyncError(void* comm, int* error) {
  *error = static_cast<Comm*>(comm)->error;
  return kSuccess;
}
EXPORTED int ncclCommAbort(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  comm->aborted = true;
  patiently([comm] { return comm->running > 0; });
  return kSuccess;
}
EXPORTED int ncclCommDestroy(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  patiently([comm] { return comm->running > 0; });
  comm->aborted = true;
  munmap(comm->segment, sizeof(Segment));
  return kSuccess;
}
EXPORTED int ncclGroupStart() {
  ++group.depth;
  return kSuccess;
}
EXPORTED int ncclGroupEnd() {
  if (group.depth == 0) return kInvalidUsage;
  return --group.depth > 0 ? kSuccess : end_of_group();
}

EXPORTED int ncclAllReduce(const void* send, void* receive, std::size_t count, int type, int op,
                           void* comm, void* stream) {
  return add(operation(Kind::kAllReduce, send, receive, count, type, op, 0, comm, stream));
}
EXPORTED int ncclReduce(const void* send, void* receive, std::size_t count, int type, int op,
                        int root, void* comm, void* stream) {
  return add(operation(Kind::kReduce, send, receive, count, type, op, root, comm, stream));
}
EXPORTED int ncclReduceScatter(const void* send, void* receive, std::size_t count, int type, int op,
                               void* comm, void* stream) {
  return add(operation(Kind::kReduceScatter, send, receive, count, type, op, 0, comm, stream));
}
EXPORTED int ncclAllGather(const void* send, void* receive, std::size_t count, int type, void* comm,
                           void* stream) {
  return add(operation(Kind::kAllGather, send, receive, count, type, 0, 0, comm, stream));
}
EXPORTED int ncclBroadcast(const void* send, void* receive, std::size_t count, int type, int root,
                           void* comm, void* stream) {
  return add(operation(Kind::kBroadcast, send, receive, count, type, 0, root, comm, stream));
}
EXPORTED int ncclSend(const void* send, std::size_t count, int type, int peer, void* comm,
                      void* stream) {
  return add(operation(Kind::kSend, send, nullptr, count, type, 0, peer, comm, stream));
}
EXPORTED int ncclRecv(void* receive, std::size_t count, int type, int peer, void* comm,
                      void* stream) {
  return add(operation(Kind::kReceive, nullptr, receive, count, type, 0, peer, comm, stream));
}

#ifndef CWAI_OLD
EXPORTED const char* ncclGetLastError(void*) { return Log::get().last_error; }
EXPORTED int ncclCommInitRankConfig(void** comm, int size, UniqueId id, int rank, Config* config) {
  return grouped([&] { return begin(comm, size, id, rank, config); });
}
EXPORTED int ncclRedOpCreatePreMulSum(int* op, void* scalar, int type, int, void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  if (type < 0 || type >= kTypes) return kInvalidArgument;
  // The factor as a number: a sum of one.
  const std::size_t unit = kSizes[static_cast<std::size_t>(type)];
  const auto* bytes = static_cast<const std::byte*>(scalar);
  double factor = 0;
  switch (type) {
    case 6:
      factor =
          static_cast<double>(SmallFloat<16, 10, 15>{*static_cast<const std::uint16_t*>(scalar)});
      break;
    case 7:
      factor = static_cast<double>(*static_cast<const float*>(scalar));
      break;
    case 8:
      factor = *static_cast<const double*>(scalar);
      break;
    case 9:
      factor =
          static_cast<double>(SmallFloat<16, 7, 127>{*static_cast<const std::uint16_t*>(scalar)});
      break;
    case 10:
      factor = static_cast<double>(SmallFloat<8, 3, 7>{*static_cast<const std::uint8_t*>(scalar)});
      break;
    case 11:
      factor = static_cast<double>(SmallFloat<8, 2, 15>{*static_cast<const std::uint8_t*>(scalar)});
      break;
    default: {
      std::int64_t value = 0;
      std::memcpy(&value, bytes, unit);  // not negative here
      factor = static_cast<double>(value);
    }
  }
  comm->premulsums.emplace_back(type, factor);
  *op = kReductions - 1 + static_cast<int>(comm->premulsums.size());
  return kSuccess;
}
EXPORTED int ncclRedOpDestroy(int, void*) { return kSuccess; }
EXPORTED int ncclMemAlloc(void** pointer, std::size_t size) {
  return Cuda::get().allocate(pointer, size) == 0 ? kSuccess : kCudaError;
}
EXPORTED int ncclMemFree(void* pointer) {
  return Cuda::get().free(pointer) == 0 ? kSuccess : kCudaError;
}
EXPORTED int ncclCommRegister(void*, void* pointer, std::size_t, void** handle) {
  if (!on_gpu(pointer)) return kInvalidArgument;
  *handle = pointer;
  return kSuccess;
}
EXPORTED int ncclCommDeregister(void*, void* handle) {
  return on_gpu(handle) ? kSuccess : kInvalidArgument;
}
#endif

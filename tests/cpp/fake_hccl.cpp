// A libhccl without NPUs, for the ranks of one machine. It keeps HCCL's binary interface, works on
// the CPU on memory of the fake libascendcl (fake_ascendcl.cpp), in its streams, and passes data
// between processes through shared memory. As HCCL does, it makes its connections at the first
// operation of each kind, for which the call waits for all ranks.
//
// Environment. A number that follows an @ is of the rank before it; operations count from 1, by
// rank.
//   CWAI_FAKE_HCCL       words, any of:
//     wrong=R@I          element I of all that rank R receives has one bit turned over
//     late=R@U           rank R begins every operation U microseconds late
//     hang=R@N           rank R never gets out of its operation N, until its stream is aborted
//     crash=R@N          rank R's process is killed in its operation N
//     error=R@N          in operation N rank R has an asynchronous error and goes no further
//     absent=R           rank R does not come to the start as long as this is set
//     refuse=R           rank R refuses to start, which the others notice
//   HCCL_CONNECT_TIMEOUT seconds, 120 where it is not set
//
// Built with CWAI_OLD it has neither HcclBatchSendRecv nor HcclGetCommAsyncError.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fake_ascend.hpp"
#include "fake_collective.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using namespace cwai_test;

// HcclResult
constexpr int kSuccess = 0, kParameter = 1, kInternal = 4, kNotSupported = 5, kTimeout = 9,
              kRemote = 21;

long misbehaves(const char* word, int rank) {
  const char* all = std::getenv("CWAI_FAKE_HCCL");
  return all == nullptr ? -1 : asked(all, word, rank);
}

// HcclDataType; 0 bytes: none of them is carried here.
constexpr std::array<std::size_t, 17> kSizes = {1, 2, 4, 2, 4, 8, 8, 1, 2, 4, 8, 2, 0, 0, 0, 1, 1};

// HcclReduceOp
constexpr std::array<Reduction, 4> kReductions = {kSum, kProd, kMax, kMin};

// What a 910B adds up and the like: the types of the manual for HcclAllReduce.
bool reduces(int type, int op) {
  const bool known =
      type == 0 || type == 1 || type == 2 || type == 3 || type == 4 || type == 5 || type == 11;
  return known && !(op == 1 && (type == 1 || type == 11));
}

void reduce(const std::vector<std::vector<std::byte>>& parts, std::byte* out, std::size_t count,
            int type, int op) {
  const Reduction how = kReductions[static_cast<std::size_t>(op)];
  switch (type) {
    case 0:
      return reduce_as<std::int8_t>(parts, out, count, how, 1);
    case 1:
      return reduce_as<std::int16_t>(parts, out, count, how, 1);
    case 2:
      return reduce_as<std::int32_t>(parts, out, count, how, 1);
    case 3:
      return reduce_as<SmallFloat<16, 10, 15>>(parts, out, count, how, 1);
    case 4:
      return reduce_as<float>(parts, out, count, how, 1);
    case 5:
      return reduce_as<std::int64_t>(parts, out, count, how, 1);
    default:
      return reduce_as<SmallFloat<16, 7, 127>>(parts, out, count, how, 1);
  }
}

// ----------------------------------------------------------------------------------- communicators

enum Kind {
  kAllReduce,
  kReduceScatter,
  kReduce,
  kAllGather,
  kBroadcast,
  kScatter,
  kAllToAll,
  kPass
};
constexpr std::size_t kKinds = 8;

struct Segment {
  std::atomic<int> here, met;
  std::atomic<bool> refused;
  std::array<std::atomic<int>, kKinds> connected;
  std::array<std::array<Box, kMostRanks>, kMostRanks> boxes;  // from, to
};

std::vector<std::string>& made_here() {
  static std::vector<std::string>& names = *new std::vector<std::string>;
  return names;
}
__attribute__((destructor)) void unlink_segments() {
  for (const std::string& name : made_here()) shm_unlink(name.c_str());
}

struct Comm {
  Segment* segment;
  int rank, size, device;
  std::atomic<int> error{kSuccess};
  std::atomic<int> running{0};
  long operations = 0;  // counted in the stream
  std::array<bool, kKinds> connected{};
};

// A communicator as one operation in a stream sees it.
struct Part {
  Comm& comm;
  int rank, size;
  struct {
    void* stream;
    operator bool() const { return fake_ascend_aborted(stream); }
  } aborted;

  Box& box(int from, int to) const {
    return comm.segment->boxes[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
  }
};

// Of all that it made none is ever let go: an operation may still stand in a stream.
Comm* new_comm(Segment* segment, int rank, int size) {
  static std::mutex& mutex = *new std::mutex;
  static auto& all = *new std::vector<std::unique_ptr<Comm>>;
  const std::lock_guard lock(mutex);
  return all
      .emplace_back(std::unique_ptr<Comm>(
          new Comm{segment, rank, size, fake_ascend_current(), {}, {}, 0, {}}))
      .get();
}

int refuse(int code, const char* why) {
  fake_ascend_says(why);
  return code;
}

// Waits for ``ready``; false after HCCL_CONNECT_TIMEOUT.
template <typename Ready>
bool in_time(Ready&& ready) {
  const char* given = std::getenv("HCCL_CONNECT_TIMEOUT");
  const auto until = std::chrono::steady_clock::now() +
                     std::chrono::seconds(given == nullptr ? 120 : std::atoi(given));
  bool good = false;
  patiently([&] {
    good = ready();
    return !good && std::chrono::steady_clock::now() < until;
  });
  return good;
}

// -------------------------------------------------------------------------------------- operations

struct Piece {  // of what arrives
  std::byte* data;
  std::size_t bytes;
};

struct Work {
  Comm* comm;
  void* stream;
  std::size_t unit;
  std::vector<Piece> arrives;
  std::function<void(const Part&)> moves;

  void run() const {
    const Part part{*comm, comm->rank, comm->size, {stream}};
    const long number = ++comm->operations;
    const auto stuck = [&] { patiently([&] { return !part.aborted; }); };
    const long late = misbehaves("late", comm->rank);
    if (late > 0) usleep(static_cast<useconds_t>(late));
    if (misbehaves("crash", comm->rank) == number) kill(getpid(), SIGKILL);
    if (misbehaves("error", comm->rank) == number) {
      comm->error = kRemote;
      return stuck();
    }
    if (misbehaves("hang", comm->rank) == number) return stuck();
    moves(part);
    const long wrong = misbehaves("wrong", comm->rank);
    if (wrong >= 0) spoil(static_cast<std::size_t>(wrong) * unit);
  }

 private:
  void spoil(std::size_t byte) const {
    for (const Piece& piece : arrives) {
      if (byte < piece.bytes) {
        piece.data[byte] ^= std::byte{1};
        return;
      }
      byte -= piece.bytes;
    }
  }
};

// ``reads`` are the buffers that must be a device's, besides those that are written.
int launch(void* handle, void* stream, Kind kind, int type, std::vector<Piece> reads,
           std::vector<Piece> arrives, std::function<void(const Part&)> moves) {
  auto* comm = static_cast<Comm*>(handle);
  if (comm == nullptr) return refuse(kParameter, "EI0003: comm is a null pointer");
  if (type < 0 || static_cast<std::size_t>(type) >= kSizes.size() ||
      kSizes[static_cast<std::size_t>(type)] == 0)
    return refuse(kParameter, "EI0003: dataType is not supported");
  if (fake_ascend_current() != comm->device)
    return refuse(kParameter, "EI0003: the device of this thread is not that of comm");
  for (const auto* side : {&reads, &arrives})
    for (const Piece& piece : *side)
      if (piece.bytes > 0 && !fake_ascend_owns(piece.data, piece.bytes))
        return refuse(kParameter, "EI0003: a buffer is not on the device");
  if (!std::exchange(comm->connected[kind], true)) {
    auto& all = comm->segment->connected[kind];
    ++all;
    // Those that only pass data on are met by their peers alone, of whom not all need to come.
    if (kind != kPass && !in_time([&] { return all >= comm->size; }))
      return refuse(kTimeout, "EI0006: Getting socket times out");
  }
  auto* work = new Work{comm, stream, kSizes[static_cast<std::size_t>(type)], std::move(arrives),
                        std::move(moves)};
  ++comm->running;
  fake_ascend_queue(
      stream,
      [](void* data) {
        const std::unique_ptr<Work> mine(static_cast<Work*>(data));
        if (!fake_ascend_aborted(mine->stream)) mine->run();
        --mine->comm->running;
      },
      work);
  return kSuccess;
}

std::size_t unit_of(int type) {
  return type < 0 || static_cast<std::size_t>(type) >= kSizes.size()
             ? 0
             : kSizes[static_cast<std::size_t>(type)];
}
Piece piece(const void* data, std::size_t bytes) {
  return {const_cast<std::byte*>(static_cast<const std::byte*>(data)), bytes};
}
std::size_t size_of(void* comm) { return static_cast<std::size_t>(static_cast<Comm*>(comm)->size); }
int rank_of(void* comm) { return static_cast<Comm*>(comm)->rank; }

// What each rank sends to each other, and gets of it, all at a time.
using Laid = std::function<Piece(int rank)>;
std::function<void(const Part&)> exchanging(Laid out, Laid in) {
  return [out = std::move(out), in = std::move(in)](const Part& part) {
    std::vector<Out> outs;
    std::vector<In> ins;
    for (int rank = 0; rank < part.size; ++rank) {
      if (const Piece one = out(rank); one.bytes > 0) outs.push_back({rank, one.data, one.bytes});
      if (const Piece one = in(rank); one.bytes > 0) ins.push_back({rank, one.data, one.bytes});
    }
    exchange(part, std::move(outs), std::move(ins));
  };
}

// ``share``: how far a rank's part lies from the one before; 0: all get the same.
int reducing(Kind kind, const std::byte* send, std::byte* receive, std::uint64_t count, int type,
             int op, int root, std::size_t share, void* handle, void* stream) {
  if (op < 0 || op >= static_cast<int>(kReductions.size()) || !reduces(type, op))
    return refuse(kNotSupported, "EI0003: this reduction is not supported on these data");
  const std::size_t unit = unit_of(type), bytes = count * unit;
  const bool takes = root < 0 || rank_of(handle) == root;
  const std::size_t sent = share > 0 ? bytes * size_of(handle) : bytes;
  return launch(
      handle, stream, kind, type, {piece(send, sent)},
      takes ? std::vector<Piece>{{receive, bytes}} : std::vector<Piece>{}, [=](const Part& part) {
        combine(
            part, bytes, takes,
            [&](int rank) {
              return root < 0 || rank == root ? send + static_cast<std::size_t>(rank) * share
                                              : nullptr;
            },
            [&](const auto& parts, std::size_t done) {
              reduce(parts, receive + done, parts[0].size() / unit, type, op);
            });
      });
}

}  // namespace

// A report must say that it comes from a stand-in.
EXPORTED const int cwai_stand_in = 1;

struct RootInfo {
  std::array<char, 4108> name;
};

EXPORTED const char* HcclGetErrorString(int code) {
  switch (code) {
    case kSuccess:
      return "no error";
    case kParameter:
      return "parameter error";
    case kNotSupported:
      return "feature not support";
    case kTimeout:
      return "timeout";
    case kRemote:
      return "error cqe status, or remote error";
    default:
      return "internal error";
  }
}
EXPORTED int HcclGetRootInfo(RootInfo* info) {
  static std::atomic<int> count{0};
  if (fake_ascend_current() < 0) return refuse(kParameter, "EI0003: no device is set");
  std::snprintf(info->name.data(), info->name.size(), "/cwai-fake-hccl-%d-%d", getpid(), ++count);
  const int fd = shm_open(info->name.data(), O_CREAT | O_EXCL | O_RDWR, 0600);
  if (fd < 0) return kInternal;
  const bool sized = ftruncate(fd, sizeof(Segment)) == 0;
  close(fd);
  made_here().emplace_back(info->name.data());
  return sized ? kSuccess : kInternal;
}
EXPORTED int HcclCommInitRootInfo(std::uint32_t size, const RootInfo* info, std::uint32_t rank,
                                  void** out) {
  if (size < 1 || size > kMostRanks || rank >= size || fake_ascend_current() < 0)
    return refuse(kParameter, "EI0003: rank, size or device");
  const int fd = shm_open(info->name.data(), O_RDWR, 0600);
  void* mapped = fd < 0 ? MAP_FAILED
                        : mmap(nullptr, sizeof(Segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (mapped == MAP_FAILED) return refuse(kInternal, "EI9999: the root cannot be reached");
  auto* segment = static_cast<Segment*>(mapped);
  const int mine = static_cast<int>(rank), all = static_cast<int>(size);
  const bool absent = misbehaves("absent", mine) >= 0;
  patiently([mine] { return misbehaves("absent", mine) >= 0; });
  if (absent || misbehaves("refuse", mine) >= 0) {
    segment->refused = true;
    return refuse(kInternal, "EI0015: this rank does not want to");
  }
  ++segment->here;
  const bool good = in_time([&] { return segment->here >= all || segment->refused; });
  if (!good || segment->refused)
    return refuse(kTimeout, "EI0015: not all ranks have come to the root in time");
  if (segment->met.fetch_add(1) + 1 == all) shm_unlink(info->name.data());
  *out = new_comm(segment, mine, all);
  return kSuccess;
}
EXPORTED int HcclCommDestroy(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  patiently([comm] { return comm->running > 0; });
  munmap(comm->segment, sizeof(Segment));
  return kSuccess;
}
#ifndef CWAI_OLD
EXPORTED int HcclGetCommAsyncError(void* comm, int* error) {
  *error = static_cast<Comm*>(comm)->error;
  return kSuccess;
}
#endif

EXPORTED int HcclAllReduce(const std::byte* send, std::byte* receive, std::uint64_t count, int type,
                           int op, void* comm, void* stream) {
  return reducing(kAllReduce, send, receive, count, type, op, -1, 0, comm, stream);
}
EXPORTED int HcclReduceScatter(const std::byte* send, std::byte* receive, std::uint64_t count,
                               int type, int op, void* comm, void* stream) {
  return reducing(kReduceScatter, send, receive, count, type, op, -1, count * unit_of(type), comm,
                  stream);
}
EXPORTED int HcclReduce(const std::byte* send, std::byte* receive, std::uint64_t count, int type,
                        int op, std::uint32_t root, void* comm, void* stream) {
  return reducing(kReduce, send, receive, count, type, op, static_cast<int>(root), 0, comm, stream);
}
EXPORTED int HcclAllGather(const std::byte* send, std::byte* receive, std::uint64_t count, int type,
                           void* comm, void* stream) {
  const std::size_t bytes = count * unit_of(type);
  return launch(comm, stream, kAllGather, type, {piece(send, bytes)},
                {{receive, bytes * size_of(comm)}},
                exchanging([=](int) { return piece(send, bytes); },
                           [=](int rank) {
                             return Piece{receive + static_cast<std::size_t>(rank) * bytes, bytes};
                           }));
}
EXPORTED int HcclBroadcast(std::byte* buffer, std::uint64_t count, int type, std::uint32_t root,
                           void* comm, void* stream) {
  const std::size_t bytes = count * unit_of(type);
  const int from = static_cast<int>(root), mine = rank_of(comm);
  return launch(
      comm, stream, kBroadcast, type, {piece(buffer, bytes)},
      mine == from ? std::vector<Piece>{} : std::vector<Piece>{{buffer, bytes}},
      exchanging(
          [=](int rank) { return Piece{buffer, mine == from && rank != from ? bytes : 0}; },
          [=](int rank) { return Piece{buffer, mine != from && rank == from ? bytes : 0}; }));
}
EXPORTED int HcclScatter(const std::byte* send, std::byte* receive, std::uint64_t count, int type,
                         std::uint32_t root, void* comm, void* stream) {
  const std::size_t bytes = count * unit_of(type);
  const int from = static_cast<int>(root), mine = rank_of(comm);
  return launch(comm, stream, kScatter, type,
                {piece(send, mine == from ? bytes * size_of(comm) : 0)}, {{receive, bytes}},
                exchanging(
                    [=](int rank) {
                      return piece(send + static_cast<std::size_t>(rank) * bytes,
                                   mine == from ? bytes : 0);
                    },
                    [=](int rank) { return Piece{receive, rank == from ? bytes : 0}; }));
}
EXPORTED int HcclAlltoAllV(const std::byte* send, const std::uint64_t* send_counts,
                           const std::uint64_t* send_offsets, int type, std::byte* receive,
                           const std::uint64_t* receive_counts,
                           const std::uint64_t* receive_offsets, int received_type, void* comm,
                           void* stream) {
  if (type != received_type || send == receive)
    return refuse(kParameter, "EI0003: types differ, or buffers do not");
  const std::size_t unit = unit_of(type), ranks = size_of(comm);
  std::vector<Piece> out, in;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    out.push_back(piece(send + send_offsets[rank] * unit, send_counts[rank] * unit));
    in.push_back({receive + receive_offsets[rank] * unit, receive_counts[rank] * unit});
  }
  return launch(comm, stream, kAllToAll, type, out, in,
                exchanging([out](int rank) { return out[static_cast<std::size_t>(rank)]; },
                           [in](int rank) { return in[static_cast<std::size_t>(rank)]; }));
}
EXPORTED int HcclAlltoAll(const std::byte* send, std::uint64_t count, int type, std::byte* receive,
                          std::uint64_t received, int received_type, void* comm, void* stream) {
  if (count != received) return refuse(kParameter, "EI0003: counts differ");
  const std::vector<std::uint64_t> counts(size_of(comm), count);
  std::vector<std::uint64_t> offsets(counts.size());
  for (std::size_t rank = 0; rank < offsets.size(); ++rank) offsets[rank] = rank * count;
  return HcclAlltoAllV(send, counts.data(), offsets.data(), type, receive, counts.data(),
                       offsets.data(), received_type, comm, stream);
}
EXPORTED int HcclSend(const std::byte* send, std::uint64_t count, int type, std::uint32_t peer,
                      void* comm, void* stream) {
  const std::size_t bytes = count * unit_of(type);
  return launch(comm, stream, kPass, type, {piece(send, bytes)}, {}, [=](const Part& part) {
    exchange(part, {{static_cast<int>(peer), send, bytes}}, {});
    // It is done when the other has it.
    patiently([&] {
      return part.box(part.rank, static_cast<int>(peer)).bytes.load() != 0 && !part.aborted;
    });
  });
}
EXPORTED int HcclRecv(std::byte* receive, std::uint64_t count, int type, std::uint32_t peer,
                      void* comm, void* stream) {
  const std::size_t bytes = count * unit_of(type);
  return launch(comm, stream, kPass, type, {}, {{receive, bytes}}, [=](const Part& part) {
    exchange(part, {}, {{static_cast<int>(peer), receive, bytes}});
  });
}
#ifndef CWAI_OLD
struct Item {
  int type;
  std::byte* buffer;
  std::uint64_t count;
  int element;
  std::uint32_t peer;
};
EXPORTED int HcclBatchSendRecv(Item* items, std::uint32_t count, void* comm, void* stream) {
  std::vector<Item> all(items, items + count);
  std::vector<Piece> reads, arrives;
  for (const Item& item : all) {
    if (item.element != all.front().element || static_cast<int>(item.peer) == rank_of(comm))
      return refuse(kParameter, "EI0003: types differ, or a rank sends to itself");
    (item.type == 0 ? reads : arrives).push_back({item.buffer, item.count * unit_of(item.element)});
  }
  return launch(comm, stream, kPass, all.front().element, reads, arrives, [all](const Part& part) {
    std::vector<Out> outs;
    std::vector<In> ins;
    for (const Item& item : all) {
      const std::size_t bytes = item.count * unit_of(item.element);
      if (item.type == 0) {
        outs.push_back({static_cast<int>(item.peer), item.buffer, bytes});
      } else {
        ins.push_back({static_cast<int>(item.peer), item.buffer, bytes});
      }
    }
    exchange(part, std::move(outs), std::move(ins));
  });
}
#endif

#include "collective/nccl.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "collective/nccl_abi.hpp"
#include "collective/startup.hpp"
#include "device/cuda.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"
#include "support/poll.hpp"

namespace cwai {
namespace {

using namespace nccl;
using Comm = void*;

// Versions as ncclGetVersion gives them from 2.9 on.
constexpr int kAvgAndBfloat16 = 21000, kGraphs = 20900, kFloat8 = 22400, kCollnet = 22700;
// GPUs for whose collectives NCCL takes numbers of 8 bits: sm90 and later (src/enqueue.cc).
constexpr int kFloat8Major = 9;
// How long what is being stopped may go on by itself: an operation that all are in ends meanwhile.
constexpr Nanos kGrace = 2 * kSecond;
// And how long the library may take to let go of a communicator.
constexpr Nanos kLettingGo = 10 * kSecond;

int number_of(Element element) noexcept { return kTypes[static_cast<std::size_t>(element)]; }

bool is_float8(Element element) noexcept {
  return element == Element::kFloat8E4M3 || element == Element::kFloat8E5M2;
}

struct Api {
  explicit Api(const std::string& path)
      : library(DynamicLibrary::open(path.empty() ? "libnccl.so.2" : path)) {
    take<int(int*)>("ncclGetVersion")(&version);
    // 2.8.4 was 2804, 2.9.0 is 20900.
    if (version < 10000) version = version / 1000 * 10000 + version % 1000;
  }

  std::string name() const {
    return "NCCL " + version_text(version) + (library.has("cwai_stand_in") ? " (stand-in)" : "");
  }
  static std::string version_text(int version) {
    return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }

  void check(int result, const std::string& what) const {
    if (result == kSuccess) [[likely]]
      return;
    std::string said = error_string(result);
    const char* last = last_error != nullptr ? last_error(nullptr) : nullptr;
    if (last != nullptr && *last != '\0') said += ": " + std::string(last);
    throw Error(Fault::kCollective, what, 0, said);
  }

  template <typename Function>
  Function* take(const char* symbol) const {
    return library.function<Function>(symbol);
  }

  // Send, receive, count, type, and the reduction or the root; communicator, stream.
  using Operating = int(const void*, void*, std::size_t, int, int, Comm, void*);

  DynamicLibrary library;
  int version = 0;
  const char* (*error_string)(int) = take<const char*(int)>("ncclGetErrorString");
  int (*unique_id)(UniqueId*) = take<int(UniqueId*)>("ncclGetUniqueId");
  int (*init)(Comm*, int, UniqueId, int) = take<int(Comm*, int, UniqueId, int)>("ncclCommInitRank");
  int (*destroy)(Comm) = take<int(Comm)>("ncclCommDestroy");
  int (*abort)(Comm) = take<int(Comm)>("ncclCommAbort");
  int (*async_error)(Comm, int*) = take<int(Comm, int*)>("ncclCommGetAsyncError");
  int (*group_start)() = take<int()>("ncclGroupStart");
  int (*group_end)() = take<int()>("ncclGroupEnd");
  Operating* all_reduce = take<Operating>("ncclAllReduce");
  Operating* reduce_scatter = take<Operating>("ncclReduceScatter");
  int (*all_gather)(const void*, void*, std::size_t, int, Comm, void*) =
      take<int(const void*, void*, std::size_t, int, Comm, void*)>("ncclAllGather");
  Operating* broadcast = take<Operating>("ncclBroadcast");
  int (*reduce)(const void*, void*, std::size_t, int, int, int, Comm, void*) =
      take<int(const void*, void*, std::size_t, int, int, int, Comm, void*)>("ncclReduce");
  // With the version that brought them.
  int (*send)(const void*, std::size_t, int, int, Comm, void*) =
      library.find<int(const void*, std::size_t, int, int, Comm, void*)>("ncclSend");  // 2.7
  int (*receive)(void*, std::size_t, int, int, Comm,
                 void*) = library.find<int(void*, std::size_t, int, int, Comm, void*)>("ncclRecv");
  int (*premulsum)(int*, void*, int, int, Comm) =
      library.find<int(int*, void*, int, int, Comm)>("ncclRedOpCreatePreMulSum");         // 2.11
  const char* (*last_error)(Comm) = library.find<const char*(Comm)>("ncclGetLastError");  // 2.13
  int (*init_config)(Comm*, int, UniqueId, int, Config*) =
      library.find<int(Comm*, int, UniqueId, int, Config*)>("ncclCommInitRankConfig");  // 2.14
  int (*allocate)(std::byte**, std::size_t) =
      library.find<int(std::byte**, std::size_t)>("ncclMemAlloc");  // 2.19
  int (*free)(std::byte*) = library.find<int(std::byte*)>("ncclMemFree");
  int (*enrol)(Comm, std::byte*, std::size_t, void**) =
      library.find<int(Comm, std::byte*, std::size_t, void**)>("ncclCommRegister");  // 2.19
  int (*withdraw)(Comm, void*) = library.find<int(Comm, void*)>("ncclCommDeregister");
};

// Memory of a card, of the kind that the library likes best; cleared.
class CardMemory {
 public:
  CardMemory(const Api& api, const Gpu& gpu, std::size_t bytes) : api_(api), gpu_(gpu) {
    if (api_.allocate == nullptr) {
      plain_ = std::make_unique<GpuMemory>(gpu, bytes);
      data_ = plain_->data();
      return;
    }
    gpu_.enter();
    api_.check(api_.allocate(&data_, bytes), "ncclMemAlloc");
    try {
      gpu_.fill(data_, 0, bytes);
    } catch (...) {
      api_.free(data_);
      throw;
    }
  }
  ~CardMemory() {
    if (plain_) return;
    api_.free(data_);
  }
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;

  std::byte* data() const noexcept { return data_; }

 private:
  const Api& api_;
  Gpu gpu_;
  std::unique_ptr<GpuMemory> plain_;
  std::byte* data_ = nullptr;
};

// One rank of the group, on its card.
struct Member {
  explicit Member(int ordinal) : gpu(ordinal) {}

  Gpu gpu;
  Stream stream{gpu};
  Event start{gpu}, end{gpu};
  Comm comm = nullptr;
  std::array<int, kElements> doubled = absent();  // its premulsum of each type, once made
  std::vector<std::unique_ptr<CardMemory>> memory;
  std::vector<void*> enrolled;

  static std::array<int, kElements> absent() {
    std::array<int, kElements> none{};
    none.fill(-1);
    return none;
  }
};
using Members = std::vector<std::unique_ptr<Member>>;

// Memory cannot be given back while something on the card may still use it: it stays to the end.
std::vector<Members>& left_behind() {
  static auto& all = *new std::vector<Members>;
  return all;
}

std::vector<Gpu> gpus_of(const Members& members) {
  std::vector<Gpu> gpus;
  for (const auto& member : members) gpus.push_back(member->gpu);
  return gpus;
}

// Calls that NCCL takes as one.
class Group {
 public:
  explicit Group(const Api& api) : api_(api) { api_.check(api_.group_start(), "ncclGroupStart"); }
  ~Group() {
    if (open_) api_.group_end();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  void end(const char* what) {
    open_ = false;
    api_.check(api_.group_end(), what);
  }

 private:
  const Api& api_;
  bool open_ = true;
};

// Starts the communicators of all ``members``, whose ranks begin with ``first``.
void start(const std::shared_ptr<const Api>& api, const Members& members, UniqueId id, int first,
           int size, int collnet, const Watch& watch) {
  const auto comms = std::make_shared<std::vector<Comm>>(members.size());
  aside(
      [api, gpus = gpus_of(members), comms, id, first, size, collnet] {
        Config config;
        if (collnet >= 0) {
          config.collnet_enable = collnet;
        } else {  // as any library knows it that has a configuration at all
          config.version = 21400;
        }
        Group group(*api);
        for (std::size_t i = 0; i < gpus.size(); ++i) {
          gpus[i].enter();
          const int rank = first + static_cast<int>(i);
          Comm& comm = (*comms)[i];
          if (api->init_config != nullptr) {
            api->check(api->init_config(&comm, size, id, rank, &config), "ncclCommInitRankConfig");
          } else {
            api->check(api->init(&comm, size, id, rank), "ncclCommInitRank");
          }
        }
        group.end("ncclCommInitRank");
      },
      [&watch](Nanos at) { watch.check(at); });
  for (std::size_t i = 0; i < members.size(); ++i) members[i]->comm = (*comms)[i];
}

class Nccl final : public CollectiveBackend {
 public:
  Nccl(std::shared_ptr<const Api> api, Members members, int first, int size, bool registered,
       bool float8)
      : api_(std::move(api)),
        members_(std::move(members)),
        ranks_(members_.size()),
        size_(size),
        registered_(registered),
        float8_(float8),
        times_(members_.size()) {
    std::iota(ranks_.begin(), ranks_.end(), first);
  }

  ~Nccl() override {
    graphs_.clear();
    if (!broken_) {
      withdraw();
      let_go(api_->destroy);
    }
    if (lost_) left_behind().push_back(std::move(members_));
  }

  int size() const noexcept override { return size_; }
  std::span<const int> members() const noexcept override { return ranks_; }
  std::string library() const override { return api_->name(); }
  bool broken() const noexcept override { return broken_; }
  bool rotates() const noexcept override { return true; }

  bool can(Operation operation, Element element, Reduction reduction,
           bool in_place) const noexcept override {
    if (number_of(element) < 0) return false;
    if (element == Element::kBfloat16 && api_->version < kAvgAndBfloat16) return false;
    const bool passes = passed_on(operation);
    if (passes && api_->send == nullptr) return false;
    if (is_float8(element) && (api_->version < kFloat8 || (!passes && !float8_))) return false;
    if (reduces(operation)) {
      if (reduction == Reduction::kAvg && api_->version < kAvgAndBfloat16) return false;
      if (reduction == Reduction::kPreMulSum && api_->premulsum == nullptr) return false;
    }
    // Blocks that members exchange would be overwritten before they are sent.
    return !in_place || !passes || has_root(operation);
  }

  const Buffers& buffers(std::size_t bytes) override {
    if (!buffers_.send.empty() && bytes <= bytes_) return buffers_;
    withdraw();
    buffers_ = {};
    for (auto& member : members_) {
      member->memory.clear();
      for (auto* side : {&buffers_.send, &buffers_.receive}) {
        member->memory.push_back(std::make_unique<CardMemory>(*api_, member->gpu, bytes));
        side->push_back(member->memory.back()->data());
        if (!registered_) continue;
        api_->check(
            api_->enrol(member->comm, side->back(), bytes, &member->enrolled.emplace_back(nullptr)),
            "ncclCommRegister");
      }
    }
    bytes_ = bytes;
    return buffers_;
  }
  void write(std::size_t member, std::byte* to, std::span<const std::byte> from) override {
    members_[member]->gpu.write(to, from);
  }
  void read(std::size_t member, std::span<std::byte> to, const std::byte* from) override {
    members_[member]->gpu.read(to, from);
  }
  void fill(std::size_t member, std::byte* to, std::uint8_t value, std::size_t bytes) override {
    members_[member]->gpu.fill(to, value, bytes);
  }

  void post(const Call& call) override {
    last_ = call.operation;
    try {
      if (marking_)
        for (const auto& member : members_) member->start.record(member->stream);
      if (members_.size() == 1 && !passed_on(call.operation)) {
        issue(call, 0);
      } else {
        Group group(*api_);
        for (std::size_t i = 0; i < members_.size(); ++i) issue(call, i);
        group.end(operation_name(call.operation));
      }
      if (marking_)
        for (const auto& member : members_) member->end.record(member->stream);
    } catch (const Error&) {
      abort();
      throw;
    }
  }

  void complete(const Watch& watch) override {
    const auto done = [this] {
      return std::all_of(members_.begin(), members_.end(),
                         [](const auto& member) { return member->stream.done(); });
    };
    const auto look = [this] {
      for (const auto& member : members_) {
        int state = kSuccess;
        api_->check(api_->async_error(member->comm, &state), "ncclCommGetAsyncError");
        if (state != kInProgress) api_->check(state, operation_name(last_));
      }
    };
    try {
      poll_until(done, watch, {look, operation_name(last_), kGrace});
    } catch (const Error&) {
      abort();
      throw;
    }
  }

  void marks(bool on) override { marking_ = on; }
  std::span<const double> marked() override {
    if (!marking_) return {};
    std::transform(members_.begin(), members_.end(), times_.begin(),
                   [](const auto& member) { return member->end.since(member->start); });
    return times_;
  }

  bool capture(std::span<const Call> calls) override {
    if (api_->version < kGraphs || !Graph::possible()) return false;
    graphs_.clear();
    try {
      for (const auto& member : members_)
        graphs_.push_back(std::make_unique<Graph>(member->stream));
      for (const Call& call : calls) post(call);
      for (const auto& graph : graphs_) graph->end();
    } catch (...) {
      graphs_.clear();
      throw;
    }
    return true;
  }
  void replay() override {
    for (const auto& graph : graphs_) graph->launch();
  }

 private:
  // What NCCL has no operation for is made of sends and receives, as nccl-tests does.
  static bool passed_on(Operation operation) noexcept {
    switch (operation) {
      case Operation::kAllToAll:
      case Operation::kAllToAllV:
      case Operation::kGather:
      case Operation::kScatter:
      case Operation::kSendRecv:
        return true;
      default:
        return false;
    }
  }

  void issue(const Call& c, std::size_t i) {
    Member& member = *members_[i];
    member.gpu.enter();
    const std::byte* send = c.send[i];
    std::byte* receive = c.receive[i];
    const Comm comm = member.comm;
    void* const stream = member.stream.handle();
    const int type = number_of(c.element), rank = ranks_[i];
    const std::size_t unit = element_size(c.element), block = c.count * unit;
    const auto to = [&](int peer, std::size_t offset, std::size_t count) {
      api_->check(api_->send(send + offset, count, type, peer, comm, stream), "ncclSend");
    };
    const auto from = [&](int peer, std::size_t offset, std::size_t count) {
      api_->check(api_->receive(receive + offset, count, type, peer, comm, stream), "ncclRecv");
    };
    const auto at = [block](int peer) { return static_cast<std::size_t>(peer) * block; };
    switch (c.operation) {
      case Operation::kAllReduce:
        return api_->check(
            api_->all_reduce(send, receive, c.count, type,
                             reduction(member, c.element, c.reduction), comm, stream),
            "ncclAllReduce");
      case Operation::kReduceScatter:
        return api_->check(
            api_->reduce_scatter(send, receive, c.count, type,
                                 reduction(member, c.element, c.reduction), comm, stream),
            "ncclReduceScatter");
      case Operation::kReduce:
        return api_->check(
            api_->reduce(send, receive, c.count, type, reduction(member, c.element, c.reduction),
                         c.root, comm, stream),
            "ncclReduce");
      case Operation::kAllGather:
        return api_->check(api_->all_gather(send, receive, c.count, type, comm, stream),
                           "ncclAllGather");
      case Operation::kBroadcast:
        return api_->check(api_->broadcast(send, receive, c.count, type, c.root, comm, stream),
                           "ncclBroadcast");
      case Operation::kAllToAll:
        for (int peer = 0; peer < size_; ++peer) {
          to(peer, at(peer), c.count);
          from(peer, at(peer), c.count);
        }
        return;
      case Operation::kAllToAllV: {
        const Uneven& uneven = c.uneven[i];
        for (int peer = 0; peer < size_; ++peer) {
          const auto p = static_cast<std::size_t>(peer);
          to(peer, uneven.send_offsets[p] * unit, uneven.send_counts[p]);
          from(peer, uneven.receive_offsets[p] * unit, uneven.receive_counts[p]);
        }
        return;
      }
      case Operation::kGather:
        to(c.root, 0, c.count);
        for (int peer = 0; rank == c.root && peer < size_; ++peer) from(peer, at(peer), c.count);
        return;
      case Operation::kScatter:
        for (int peer = 0; rank == c.root && peer < size_; ++peer) to(peer, at(peer), c.count);
        return from(c.root, 0, c.count);
      case Operation::kSendRecv:
        to((rank + 1) % size_, 0, c.count);
        return from((rank + size_ - 1) % size_, 0, c.count);
    }
  }

  int reduction(Member& member, Element element, Reduction reduction) const {
    if (reduction != Reduction::kPreMulSum) return kOps[static_cast<std::size_t>(reduction)];
    int& made = member.doubled[static_cast<std::size_t>(element)];
    if (made >= 0) return made;
    // Two: 0x40 and zeroes in every floating type here, from 8 to 64 bits.
    std::array<std::byte, sizeof(std::uint64_t)> two{};
    if (element >= Element::kFloat16) {
      two[element_size(element) - 1] = std::byte{0x40};
    } else {
      two[0] = std::byte{2};
    }
    api_->check(api_->premulsum(&made, two.data(), number_of(element), kHostImmediate, member.comm),
                "ncclRedOpCreatePreMulSum");
    return made;
  }

  void withdraw() {
    for (const auto& member : members_) {
      for (void* handle : member->enrolled) api_->withdraw(member->comm, handle);
      member->enrolled.clear();
    }
  }

  void abort() {
    if (broken_) return;
    broken_ = true;
    let_go(api_->abort);
  }

  void let_go(int (*how)(Comm)) {
    std::vector<Comm> comms;
    for (const auto& member : members_) comms.push_back(member->comm);
    const Nanos until = now() + kLettingGo;
    try {
      aside(
          [api = api_, how, gpus = gpus_of(members_), comms] {
            for (std::size_t i = 0; i < comms.size(); ++i) {
              gpus[i].enter();
              how(comms[i]);
            }
          },
          [until](Nanos at) {
            if (at >= until) throw Error(Fault::kDeadline, "NCCL");
          });
    } catch (const Error&) {
      lost_ = true;
    }
  }

  std::shared_ptr<const Api> api_;
  Members members_;
  std::vector<int> ranks_;
  int size_;
  bool registered_, float8_;
  Buffers buffers_;
  std::size_t bytes_ = 0;
  Operation last_ = Operation::kAllReduce;
  bool marking_ = false, broken_ = false, lost_ = false;
  std::vector<double> times_;
  std::vector<std::unique_ptr<Graph>> graphs_;
};

}  // namespace

std::unique_ptr<CollectiveBackend> nccl_backend(Meeting& meeting, const NcclSpec& spec,
                                                const Watch& watch) {
  std::shared_ptr<const Api> api;
  Members members;
  int major = std::numeric_limits<int>::max();
  together(meeting, "NCCL", [&] {
    if (spec.cards.empty()) throw Error(Fault::kInvalid, "cards");
    api = std::make_shared<const Api>(spec.library);
    if (spec.collnet >= 0 && (api->init_config == nullptr || api->version < kCollnet))
      throw Error(Fault::kUnsupported, api->name(), 0, "collnet");
    if (spec.registered && api->enrol == nullptr)
      throw Error(Fault::kUnsupported, api->name(), 0, "registered");
    for (const int card : spec.cards) {
      members.push_back(std::make_unique<Member>(card));
      major = std::min(major, members.back()->gpu.attribute(GpuAttribute::kComputeMajor));
    }
  });

  // Who has how many cards; and what must be the same everywhere, or the least of all.
  const auto processes = static_cast<std::size_t>(meeting.size());
  const auto me = static_cast<std::size_t>(meeting.rank());
  std::vector<double> known(processes + 3);
  known[me] = static_cast<double>(members.size());
  known[processes] = api->version;
  known[processes + 1] = -api->version;
  known[processes + 2] = -major;
  meeting.largest(known);
  const int newest = static_cast<int>(known[processes]);
  const int oldest = static_cast<int>(-known[processes + 1]);
  if (newest != oldest)
    throw Error(Fault::kMixed, "NCCL", 0,
                Api::version_text(oldest) + ", " + Api::version_text(newest));
  const auto end = known.begin() + static_cast<std::ptrdiff_t>(processes);
  const int size = static_cast<int>(std::accumulate(known.begin(), end, 0.0));
  const int first = static_cast<int>(
      std::accumulate(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(me), 0.0));

  UniqueId id{};
  together(meeting, "NCCL", [&] {
    if (meeting.rank() == 0) api->check(api->unique_id(&id), "ncclGetUniqueId");
  });
  meeting.broadcast(std::as_writable_bytes(std::span(id.bytes)), 0);
  together(meeting, "NCCL", [&] { start(api, members, id, first, size, spec.collnet, watch); });
  return std::make_unique<Nccl>(std::move(api), std::move(members), first, size, spec.registered,
                                -known[processes + 2] >= kFloat8Major);
}

}  // namespace cwai

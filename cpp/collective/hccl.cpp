#include "collective/hccl.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "collective/hccl_abi.hpp"
#include "collective/startup.hpp"
#include "device/ascend.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"
#include "support/poll.hpp"

namespace cwai {
namespace {

using namespace hccl;
using Comm = void*;

// How long what is being stopped may go on by itself: an operation that all are in ends meanwhile.
constexpr Nanos kGrace = 2 * kSecond;
// And how long the library may take to let go of a communicator.
constexpr Nanos kLettingGo = 10 * kSecond;

int number_of(Element element) noexcept { return kTypes[static_cast<std::size_t>(element)]; }

struct Api {
  explicit Api(const std::string& path) : library(ascend_library("libhccl.so", path)) {}

  std::string name() const { return library.has("cwai_stand_in") ? "HCCL (stand-in)" : "HCCL"; }

  void check(int result, const std::string& what) const {
    if (result == kSuccess) [[likely]]
      return;
    const char* text = error_string != nullptr ? error_string(result) : nullptr;
    std::string said = text != nullptr ? text : "HCCL error " + std::to_string(result);
    if (const std::string words = npu_words(); !words.empty()) said += ": " + words;
    throw Error(Fault::kCollective, what, 0, said);
  }

  DynamicLibrary library;
  int (*root_info)(RootInfo*) = take<int(RootInfo*)>("HcclGetRootInfo");
  int (*init)(std::uint32_t, const RootInfo*, std::uint32_t, Comm*) =
      take<int(std::uint32_t, const RootInfo*, std::uint32_t, Comm*)>("HcclCommInitRootInfo");
  int (*destroy)(Comm) = take<int(Comm)>("HcclCommDestroy");
  // Send, receive, count, type, and the reduction or the root; communicator, stream.
  using Operating = int(const std::byte*, std::byte*, std::uint64_t, int, int, Comm, void*);
  Operating* all_reduce = take<Operating>("HcclAllReduce");
  Operating* reduce_scatter = take<Operating>("HcclReduceScatter");
  int (*all_gather)(const std::byte*, std::byte*, std::uint64_t, int, Comm, void*) =
      take<int(const std::byte*, std::byte*, std::uint64_t, int, Comm, void*)>("HcclAllGather");
  int (*broadcast)(std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*) =
      take<int(std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*)>("HcclBroadcast");
  // What an old toolkit may lack.
  int (*reduce)(const std::byte*, std::byte*, std::uint64_t, int, int, std::uint32_t, Comm,
                void*) = library.find<int(const std::byte*, std::byte*, std::uint64_t, int, int,
                                          std::uint32_t, Comm, void*)>("HcclReduce");
  Operating* scatter = library.find<Operating>("HcclScatter");
  int (*all_to_all)(const std::byte*, std::uint64_t, int, const std::byte*, std::uint64_t, int,
                    Comm, void*) =
      library.find<int(const std::byte*, std::uint64_t, int, const std::byte*, std::uint64_t, int,
                       Comm, void*)>("HcclAlltoAll");
  int (*all_to_all_v)(const std::byte*, const std::uint64_t*, const std::uint64_t*, int,
                      const std::byte*, const std::uint64_t*, const std::uint64_t*, int, Comm,
                      void*) =
      library.find<int(const std::byte*, const std::uint64_t*, const std::uint64_t*, int,
                       const std::byte*, const std::uint64_t*, const std::uint64_t*, int, Comm,
                       void*)>("HcclAlltoAllV");
  int (*send)(const std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*) =
      library.find<int(const std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*)>(
          "HcclSend");
  int (*receive)(std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*) =
      library.find<int(std::byte*, std::uint64_t, int, std::uint32_t, Comm, void*)>("HcclRecv");
  int (*batch)(SendReceive*, std::uint32_t, Comm, void*) =
      library.find<int(SendReceive*, std::uint32_t, Comm, void*)>("HcclBatchSendRecv");
  int (*async_error)(Comm, int*) = library.find<int(Comm, int*)>("HcclGetCommAsyncError");
  const char* (*error_string)(int) = library.find<const char*(int)>("HcclGetErrorString");

 private:
  template <typename Function>
  Function* take(const char* symbol) const {
    return library.function<Function>(symbol);
  }
};

// A thread that does one thing after another. What it does may be waited for, so both may throw.
class Hand {
 public:
  Hand() : thread_([this] { run(); }) {}
  ~Hand() {
    give(nullptr);
    thread_.join();
  }
  Hand(const Hand&) = delete;
  Hand& operator=(const Hand&) = delete;

  void start(std::function<void()> work) { give(std::move(work)); }
  /// Returns when it is done, and throws what it threw.
  void finish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !given_; });
    if (const std::exception_ptr failed = std::exchange(failed_, nullptr))
      std::rethrow_exception(failed);
  }

 private:
  void give(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    work_ = std::move(work);
    given_ = true;
    changed_.notify_all();
  }
  void run() {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return given_; });
      const std::function<void()> work = std::move(work_);
      if (!work) return;
      lock.unlock();
      std::exception_ptr failed;
      try {
        work();
      } catch (...) {
        failed = std::current_exception();
      }
      lock.lock();
      failed_ = std::move(failed);
      given_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool given_ = false;
  std::exception_ptr failed_;
  std::thread thread_;
};

// One rank of the group, on its card.
struct Member {
  explicit Member(int ordinal) : npu(ordinal) {}

  Npu npu;
  NpuStream stream{npu};
  NpuEvent start{npu}, end{npu};
  Comm comm = nullptr;
  std::vector<std::unique_ptr<NpuMemory>> memory;
};
using Members = std::vector<std::unique_ptr<Member>>;

// Calls ``one`` with the index of each member, all at a time: within it HCCL waits for the others.
void each(std::vector<std::unique_ptr<Hand>>& hands, const std::function<void(std::size_t)>& one) {
  for (std::size_t i = 0; i < hands.size(); ++i) hands[i]->start([&one, i] { one(i + 1); });
  std::exception_ptr failed;
  const auto keep = [&failed](const std::function<void()>& body) {
    try {
      body();
    } catch (...) {
      if (!failed) failed = std::current_exception();
    }
  };
  keep([&] { one(0); });
  for (const auto& hand : hands) keep([&] { hand->finish(); });
  if (failed) std::rethrow_exception(failed);
}

std::vector<std::unique_ptr<Hand>> hands_for(std::size_t members) {
  std::vector<std::unique_ptr<Hand>> hands;
  for (std::size_t i = 1; i < members; ++i) hands.push_back(std::make_unique<Hand>());
  return hands;
}

// Starts the communicators of all ``members``.
void start(const std::shared_ptr<const Api>& api, const Members& members, const RootInfo& info,
           Ranks ranks, const Watch& watch) {
  std::vector<Npu> npus;
  for (const auto& member : members) npus.push_back(member->npu);
  const auto comms = std::make_shared<std::vector<Comm>>(members.size());
  aside(
      [api, npus, comms, info, ranks] {
        auto hands = hands_for(npus.size());
        each(hands, [&](std::size_t i) {
          npus[i].enter();
          api->check(
              api->init(static_cast<std::uint32_t>(ranks.size), &info,
                        static_cast<std::uint32_t>(ranks.first) + static_cast<std::uint32_t>(i),
                        &(*comms)[i]),
              "HcclCommInitRootInfo");
        });
      },
      [&watch](Nanos at) { watch.check(at); });
  for (std::size_t i = 0; i < members.size(); ++i) members[i]->comm = (*comms)[i];
}

// Memory cannot be given back while something on the card may still use it: it stays to the end.
std::vector<Members>& left_behind() {
  static auto& all = *new std::vector<Members>;
  return all;
}

class Hccl final : public CollectiveBackend {
 public:
  Hccl(std::shared_ptr<const Api> api, Members members, Ranks ranks, NpuKind kind)
      : api_(std::move(api)),
        members_(std::move(members)),
        hands_(hands_for(members_.size())),
        ranks_(members_.size()),
        size_(ranks.size),
        kind_(kind),
        times_(members_.size()) {
    std::iota(ranks_.begin(), ranks_.end(), ranks.first);
  }

  ~Hccl() override {
    if (!broken_) let_go(false);
    if (lost_) left_behind().push_back(std::move(members_));
  }

  int size() const noexcept override { return size_; }
  std::span<const int> members() const noexcept override { return ranks_; }
  std::string library() const override { return api_->name(); }
  bool broken() const noexcept override { return broken_; }
  bool rotates() const noexcept override { return true; }

  bool can(Operation operation, Element element, Reduction reduction,
           bool in_place) const noexcept override {
    if (!is_there(operation)) return false;
    if (in_place && !takes_one_buffer(operation)) return false;
    if (!reduces(operation)) return carries(element);
    const auto op = static_cast<int>(reduction);
    const bool no_product =
        kind_ >= NpuKind::kSecond && (element == Element::kInt16 || element == Element::kBfloat16);
    return op < kOps && computes(element) && !(reduction == Reduction::kProd && no_product);
  }

  const Buffers& buffers(std::size_t bytes) override {
    if (!buffers_.send.empty() && bytes <= bytes_) return buffers_;
    buffers_ = {};
    for (auto& member : members_) {
      member->memory.clear();
      for (auto* side : {&buffers_.send, &buffers_.receive}) {
        member->memory.push_back(std::make_unique<NpuMemory>(member->npu, bytes));
        side->push_back(member->memory.back()->data());
      }
    }
    bytes_ = bytes;
    return buffers_;
  }
  void write(std::size_t member, std::byte* to, std::span<const std::byte> from) override {
    members_[member]->npu.write(to, from);
  }
  void read(std::size_t member, std::span<std::byte> to, const std::byte* from) override {
    members_[member]->npu.read(to, from);
  }
  void fill(std::size_t member, std::byte* to, std::uint8_t value, std::size_t bytes) override {
    members_[member]->npu.fill(to, value, bytes);
  }

  void post(const Call& call) override {
    last_ = call.operation;
    try {
      each(hands_, [&](std::size_t i) {
        const Member& member = *members_[i];
        member.npu.enter();
        if (marking_) member.start.record(member.stream);
        issue(call, i);
        if (marking_) member.end.record(member.stream);
      });
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
        if (api_->async_error == nullptr) break;
        api_->check(api_->async_error(member->comm, &state), "HcclGetCommAsyncError");
        api_->check(state, operation_name(last_));
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

  bool capture(std::span<const Call>) override { return false; }
  void replay() override {}

 private:
  bool is_there(Operation operation) const noexcept {
    switch (operation) {
      case Operation::kReduce:
        return api_->reduce != nullptr;
      case Operation::kScatter:
        return api_->scatter != nullptr;
      case Operation::kAllToAll:
        return api_->all_to_all != nullptr;
      case Operation::kAllToAllV:
        return api_->all_to_all_v != nullptr;
      case Operation::kSendRecv:  // nobody sends to oneself
        return size_ > 1 && (api_->batch != nullptr || api_->send != nullptr);
      case Operation::kGather:
        return false;
      default:
        return true;
    }
  }
  // Where the manual, or torch_npu by what it does, has both buffers in one.
  static bool takes_one_buffer(Operation operation) noexcept {
    return operation == Operation::kAllReduce || operation == Operation::kReduce ||
           operation == Operation::kBroadcast;
  }
  // The types of the manual (HcclAllGather and the like, HcclAllReduce and the like).
  bool carries(Element element) const noexcept {
    if (element == Element::kFloat8E4M3 || element == Element::kFloat8E5M2)
      return kind_ == NpuKind::kThird;
    return element != Element::kBfloat16 || kind_ != NpuKind::kFirst;
  }
  bool computes(Element element) const noexcept {
    switch (element) {
      case Element::kInt8:
      case Element::kInt32:
      case Element::kInt64:
      case Element::kFloat16:
      case Element::kFloat32:
        return true;
      case Element::kInt16:
      case Element::kBfloat16:
        return kind_ != NpuKind::kFirst;
      case Element::kUint64:
      case Element::kFloat64:
        return kind_ == NpuKind::kThird;
      default:
        return false;
    }
  }

  void issue(const Call& c, std::size_t i) const {
    const std::byte* send = c.send[i];
    std::byte* receive = c.receive[i];
    const Comm comm = members_[i]->comm;
    void* const stream = members_[i]->stream.handle();
    const int type = number_of(c.element), rank = ranks_[i];
    const auto op = static_cast<int>(c.reduction);
    const auto root = static_cast<std::uint32_t>(c.root);
    switch (c.operation) {
      case Operation::kAllReduce:
        return api_->check(api_->all_reduce(send, receive, c.count, type, op, comm, stream),
                           "HcclAllReduce");
      case Operation::kReduceScatter:
        return api_->check(api_->reduce_scatter(send, receive, c.count, type, op, comm, stream),
                           "HcclReduceScatter");
      case Operation::kReduce:
        return api_->check(api_->reduce(send, receive, c.count, type, op, root, comm, stream),
                           "HcclReduce");
      case Operation::kAllGather:
        return api_->check(api_->all_gather(send, receive, c.count, type, comm, stream),
                           "HcclAllGather");
      case Operation::kBroadcast: {
        // It has one buffer; the root's is only read.
        std::byte* const buffer = rank == c.root ? const_cast<std::byte*>(send) : receive;
        return api_->check(api_->broadcast(buffer, c.count, type, root, comm, stream),
                           "HcclBroadcast");
      }
      case Operation::kScatter:
        return api_->check(api_->scatter(send, receive, c.count, type, c.root, comm, stream),
                           "HcclScatter");
      case Operation::kAllToAll:
        return api_->check(
            api_->all_to_all(send, c.count, type, receive, c.count, type, comm, stream),
            "HcclAlltoAll");
      case Operation::kAllToAllV: {
        const Uneven& uneven = c.uneven[i];
        return api_->check(
            api_->all_to_all_v(send, uneven.send_counts.data(), uneven.send_offsets.data(), type,
                               receive, uneven.receive_counts.data(), uneven.receive_offsets.data(),
                               type, comm, stream),
            "HcclAlltoAllV");
      }
      case Operation::kSendRecv:
        return pass_on(c, i);
      case Operation::kGather:
        break;
    }
    throw Error(Fault::kUnsupported, api_->name(), 0, operation_name(c.operation));
  }

  void pass_on(const Call& c, std::size_t i) const {
    const Comm comm = members_[i]->comm;
    void* const stream = members_[i]->stream.handle();
    const int type = number_of(c.element), rank = ranks_[i];
    const auto next = static_cast<std::uint32_t>((rank + 1) % size_);
    const auto before = static_cast<std::uint32_t>((rank + size_ - 1) % size_);
    if (api_->batch != nullptr) {
      std::array<SendReceive, 2> both{{
          {0, const_cast<std::byte*>(c.send[i]), c.count, type, next},
          {1, c.receive[i], c.count, type, before},
      }};
      return api_->check(api_->batch(both.data(), both.size(), comm, stream), "HcclBatchSendRecv");
    }
    // One after the other, and each waits for its peer: not all may send first.
    const auto send = [&] {
      api_->check(api_->send(c.send[i], c.count, type, next, comm, stream), "HcclSend");
    };
    if (rank % 2 == 0) send();
    api_->check(api_->receive(c.receive[i], c.count, type, before, comm, stream), "HcclRecv");
    if (rank % 2 != 0) send();
  }

  void abort() {
    if (broken_) return;
    broken_ = true;
    let_go(true);
  }

  // A communicator whose operation cannot be ended is not destroyed: that would wait for it.
  void let_go(bool ending) {
    std::vector<Npu> npus;
    std::vector<std::pair<Comm, void*>> all;
    for (const auto& member : members_) {
      npus.push_back(member->npu);
      all.emplace_back(member->comm, member->stream.handle());
    }
    const Nanos until = now() + kLettingGo;
    try {
      aside(
          [api = api_, npus, all, ending] {
            for (std::size_t i = 0; ending && i < all.size(); ++i) {
              npus[i].enter();
              if (!abort_npu_stream(all[i].second)) throw Error(Fault::kUnsupported, "HCCL");
            }
            auto hands = hands_for(all.size());
            each(hands, [&](std::size_t i) {
              npus[i].enter();
              api->destroy(all[i].first);
            });
          },
          [until](Nanos at) {
            if (at >= until) throw Error(Fault::kDeadline, "HCCL");
          });
    } catch (const Error&) {
      lost_ = true;
    }
  }

  std::shared_ptr<const Api> api_;
  Members members_;
  mutable std::vector<std::unique_ptr<Hand>> hands_;
  std::vector<int> ranks_;
  int size_;
  NpuKind kind_;
  Buffers buffers_;
  std::size_t bytes_ = 0;
  Operation last_ = Operation::kAllReduce;
  bool marking_ = false, broken_ = false, lost_ = false;
  std::vector<double> times_;
};

}  // namespace

std::string hccl_path(const std::string& library) {
  const DynamicLibrary found = ascend_library("libhccl.so", library);
  Npu::open(found.name());
  for (const std::string& path : loaded_libraries())
    if (path.find("/libhccl.so") != std::string::npos) return path;
  return found.name();
}

std::unique_ptr<CollectiveBackend> hccl_backend(Meeting& meeting, const HcclSpec& spec,
                                                const Watch& watch) {
  std::shared_ptr<const Api> api;
  Members members;
  double kind = 0;
  together(meeting, "HCCL", [&] {
    if (spec.cards.empty()) throw Error(Fault::kInvalid, "cards");
    api = std::make_shared<const Api>(spec.library);
    Npu::open(api->library.name());
    for (const int card : spec.cards) members.push_back(std::make_unique<Member>(card));
    kind = static_cast<double>(Npu::kind());
  });
  const Ranks ranks = ranks_of(meeting, members.size());
  std::array<double, 1> oldest{kind};
  meeting.least(oldest);  // what one cannot, none does

  RootInfo info{};
  together(meeting, "HCCL", [&] {
    if (meeting.rank() != 0) return;
    members.front()->npu.enter();
    api->check(api->root_info(&info), "HcclGetRootInfo");
  });
  meeting.broadcast(std::as_writable_bytes(std::span(info.bytes)), 0);
  together(meeting, "HCCL", [&] { start(api, members, info, ranks, watch); });
  return std::make_unique<Hccl>(std::move(api), std::move(members), ranks,
                                static_cast<NpuKind>(oldest[0]));
}

}  // namespace cwai

#include "transport/loopback.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "support/error.hpp"
#include "transport/ring.hpp"
#include "transport/tcp.hpp"  // kMaxLanes, Socket

namespace cwai {
namespace {

// Every index lies on a cache line of its own, so that the two threads do not fight for it.
constexpr std::size_t kCacheLine = 64;

// One thread pushes, one other thread pops.
template <typename T>
class Channel {
 public:
  bool push(const T& item) noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == Connection::kDepth) return false;
    items_[tail % Connection::kDepth] = item;
    tail_.store(tail + 1, std::memory_order_seq_cst);  // seq_cst: ordered against Doorbell::asleep_
    return true;
  }
  bool pop(T& item) noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    if (tail_.load(std::memory_order_seq_cst) == head) return false;
    item = items_[head % Connection::kDepth];
    head_.store(head + 1, std::memory_order_release);
    return true;
  }
  /// For whoever pushes, while nobody pops.
  template <typename Which>
  T* find(const Which& which) noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    for (std::size_t i = head_.load(std::memory_order_acquire); i != tail; ++i)
      if (which(items_[i % Connection::kDepth])) return &items_[i % Connection::kDepth];
    return nullptr;
  }

 private:
  std::array<T, Connection::kDepth> items_{};
  alignas(kCacheLine) std::atomic<std::size_t> head_{0};
  alignas(kCacheLine) std::atomic<std::size_t> tail_{0};
};

// Wakes one end. Ringing costs a system call only when that end sleeps.
class Doorbell {
 public:
  Doorbell() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!event_) throw Error(Fault::kTransfer, "eventfd", errno);
  }
  void ring() noexcept {
    if (!asleep_.load() || !asleep_.exchange(false)) return;
    const std::uint64_t one = 1;
    (void)!::write(event_.fd(), &one, sizeof one);
  }
  /// Announce the sleep, look once more whether there is work, then sleep: a ring in between is not
  /// lost.
  void announce() noexcept { asleep_.store(true); }
  void withdraw() noexcept { asleep_.store(false); }
  void sleep(Nanos until) noexcept {
    pollfd entry{.fd = event_.fd(), .events = POLLIN, .revents = 0};
    const Nanos left = std::clamp<Nanos>(until - now(), 0, kSlice);
    ::poll(&entry, 1, static_cast<int>((left + 999'999) / 1'000'000));
    wake();
  }
  int fd() const noexcept { return event_.fd(); }
  void wake() noexcept {
    withdraw();
    std::uint64_t count;
    (void)!::read(event_.fd(), &count, sizeof count);
  }

 private:
  Socket event_;
  alignas(kCacheLine) std::atomic<bool> asleep_{false};
};

struct Source {
  std::span<const std::byte> data;
  std::uint64_t tag;
};

// What flows one way on one lane: what the sender offers, and what the receiver has taken of it.
struct Pipe {
  std::mutex copying;  ///< Held while what is offered is taken and read, and while it is moved.
  Channel<Source> offered;
  Channel<Completion> taken;
};

struct Shared {
  explicit Shared(int lanes)
      : pipes{std::vector<Pipe>(static_cast<std::size_t>(lanes)),
              std::vector<Pipe>(static_cast<std::size_t>(lanes))} {}
  std::array<std::vector<Pipe>, 2> pipes;  ///< pipes[e]: towards end e.
  std::array<Doorbell, 2> doorbells;       ///< doorbells[e] wakes end e.
  std::array<std::atomic<bool>, 2> gone{};
  std::array<std::atomic<bool>, 2> copying{};  ///< End e is reading the other end's buffer.
};

class MemoryEnd final : public Connection {
 public:
  MemoryEnd(std::shared_ptr<Shared> shared, std::size_t end, Waiting waiting)
      : shared_(std::move(shared)),
        me_(end),
        peer_(1 - end),
        waiting_(waiting),
        lanes_(shared_->pipes[0].size()) {}

  ~MemoryEnd() override { fence(); }

  void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) override {
    Lane& at = this->at(lane);
    if (at.sending.full() || fenced_) throw Error(Fault::kInvalid, "post");
    at.sending.push(tag);
    outbound(lane).offered.push({.data = data, .tag = tag});
    shared_->doorbells[peer_].ring();
  }

  void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) override {
    Lane& at = this->at(lane);
    if (at.receives.full() || fenced_) throw Error(Fault::kInvalid, "post");
    at.receives.push({.data = data, .tag = tag});
  }

  std::size_t poll(std::span<Completion> out) override {
    std::size_t n = 0;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      const int lane = static_cast<int>(i);
      if (n < out.size() && !lanes_[i].sending.empty()) n += send(lane, out[n]);
      if (n < out.size() && !lanes_[i].receives.empty()) n += receive(lane, out[n]);
    }
    return n;
  }

  std::size_t wait(std::span<Completion> out, Nanos until) override {
    constexpr int kTurns = 1024;
    do {
      if (waiting_ == Waiting::kSpin) {
        for (int turn = 0; turn < kTurns; ++turn)
          if (const std::size_t n = poll(out); n > 0) return n;
        continue;
      }
      if (const std::size_t n = poll(out); n > 0) return n;
      Doorbell& mine = shared_->doorbells[me_];
      mine.announce();
      if (const std::size_t n = poll(out); n > 0) {
        mine.withdraw();
        return n;
      }
      mine.sleep(until);
    } while (now() < until);
    return 0;
  }

  Nanos arm(std::vector<pollfd>& into) override {
    Doorbell& mine = shared_->doorbells[me_];
    mine.announce();
    into.push_back({.fd = mine.fd(), .events = POLLIN, .revents = 0});
    return kNever;
  }
  void disarm() override { shared_->doorbells[me_].wake(); }

  bool redirect(int lane, Direction direction, std::uint64_t tag,
                std::span<std::byte> instead) override {
    if (direction == Direction::kReceive) {
      Ring<Target, kDepth>& receives = at(lane).receives;
      for (std::size_t i = 0; i < receives.size(); ++i) {
        Target& target = receives[i];
        if (target.tag != tag) continue;
        if (target.data.size() != instead.size()) throw Error(Fault::kInvalid, "redirect");
        target.data = instead;  // nothing is in the old one: a message comes in one copy
        return true;
      }
      return false;
    }
    Pipe& pipe = outbound(lane);
    const std::lock_guard lock(pipe.copying);
    Source* source = pipe.offered.find([&](const Source& s) { return s.tag == tag; });
    if (source == nullptr) return false;
    if (source->data.size() != instead.size()) throw Error(Fault::kInvalid, "redirect");
    std::memcpy(instead.data(), source->data.data(), instead.size());
    source->data = instead;
    return true;
  }

  void fence() override {
    fenced_ = true;
    shared_->gone[me_].store(true);
    // A copy that the peer began before it could see the flag is waited for: it takes no longer
    // than a memcpy.
    while (shared_->copying[peer_].load()) {
    }
    shared_->doorbells[peer_].ring();
  }

  void prepare(Goal) override {}
  std::size_t useful_depth() const noexcept override { return 4; }
  int lanes() const noexcept override { return static_cast<int>(lanes_.size()); }
  const char* transport() const noexcept override { return "loopback"; }
  std::string local() const override { return "memory"; }
  std::string remote() const override { return "memory"; }

 private:
  struct Target {
    std::span<std::byte> data;
    std::uint64_t tag;
  };
  struct Lane {
    Ring<std::uint64_t, kDepth> sending;  // tags of what was offered and is not taken
    Ring<Target, kDepth> receives;
  };

  Lane& at(int lane) {
    if (lane < 0 || lane >= lanes()) throw Error(Fault::kInvalid, "lane " + std::to_string(lane));
    return lanes_[static_cast<std::size_t>(lane)];
  }
  Pipe& inbound(int lane) { return shared_->pipes[me_][static_cast<std::size_t>(lane)]; }
  Pipe& outbound(int lane) { return shared_->pipes[peer_][static_cast<std::size_t>(lane)]; }

  // Why nothing more can come or go, or 0.
  int broken() const noexcept {
    if (fenced_) return ECANCELED;
    return shared_->gone[peer_].load() ? ECONNRESET : 0;
  }

  std::size_t send(int lane, Completion& out) {
    Lane& at = this->at(lane);
    // Asked before looking: what was taken before the peer went still counts.
    const int broken = this->broken();
    if (outbound(lane).taken.pop(out)) {
      out.time = now();
    } else if (broken != 0) {
      out = {.tag = at.sending.front(),
             .bytes = 0,
             .time = now(),
             .status = broken,
             .lane = lane,
             .direction = Direction::kSend};
    } else {
      return 0;
    }
    at.sending.pop();
    return 1;
  }

  std::size_t receive(int lane, Completion& out) {
    Lane& at = this->at(lane);
    const Target target = at.receives.front();
    int status = 0;
    std::size_t bytes = 0;
    if (fenced_) {
      status = ECANCELED;
    } else {
      Source source{};
      Pipe& pipe = inbound(lane);
      const std::lock_guard lock(pipe.copying);
      shared_->copying[me_].store(true);
      if (shared_->gone[peer_].load()) {
        status = ECONNRESET;
      } else if (!pipe.offered.pop(source)) {
        shared_->copying[me_].store(false);
        return 0;
      } else {
        bytes = std::min(source.data.size(), target.data.size());
        std::memcpy(target.data.data(), source.data.data(), bytes);
        status = source.data.size() == target.data.size() ? 0 : EMSGSIZE;
        pipe.taken.push({.tag = source.tag,
                         .bytes = bytes,
                         .time = 0,
                         .status = status,
                         .lane = lane,
                         .direction = Direction::kSend});
      }
      shared_->copying[me_].store(false);
      shared_->doorbells[peer_].ring();
    }
    out = {.tag = target.tag,
           .bytes = bytes,
           .time = now(),
           .status = status,
           .lane = lane,
           .direction = Direction::kReceive};
    at.receives.pop();
    return 1;
  }

  std::shared_ptr<Shared> shared_;
  std::size_t me_;
  std::size_t peer_;
  Waiting waiting_;
  bool fenced_ = false;
  std::vector<Lane> lanes_;
};

}  // namespace

std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> memory_pair(int lanes,
                                                                                Waiting waiting) {
  if (lanes < 1 || lanes > kMaxLanes)
    throw Error(Fault::kInvalid, "lanes " + std::to_string(lanes));
  auto shared = std::make_shared<Shared>(lanes);
  return {std::make_unique<MemoryEnd>(shared, 0, waiting),
          std::make_unique<MemoryEnd>(shared, 1, waiting)};
}

}  // namespace cwai

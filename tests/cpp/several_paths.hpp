// Both ends of the multipath engine within a test, over any transport, with faults planted.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ends.hpp"
#include "multipath/receiver.hpp"
#include "multipath/sender.hpp"
#include "runner.hpp"
#include "support/error.hpp"
#include "transport/faulty.hpp"
#include "transport/verbs.hpp"
#include "with_fake_verbs.hpp"

namespace cwai_test {

using namespace cwai;
using namespace cwai::multipath;

constexpr Nanos kMilli = 1'000'000;
constexpr Nanos kPatience = 20 * kSecond;

// Several paths that can be planted with faults, and connected again. Those of RDMA are over the
// fake library: the first, third … over its first device, the others over its second.
class Paths {
 public:
  enum Kind { kMemory, kTcp, kVerbs };

  Paths(Kind kind, std::size_t count) : kind_(kind) {
    if (kind == kVerbs) fake();
    for (std::size_t i = 0; i < count; ++i) {
      plants.push_back(std::make_shared<Plant>());
      if (kind != kMemory) listeners_.push_back(std::make_unique<TcpListener>("127.0.0.1", 0, 1));
      Ends ends = kind == kMemory ? memory_pair(1, Waiting::kBlock) : meeting(i);
      first.push_back(planted(std::move(ends.first), plants[i]));
      second.push_back(planted(std::move(ends.second), plants[i]));
    }
  }

  // Of the sending end: a path that is cut cannot be connected, and one that was reset can.
  Dial dial() {
    return [this](std::size_t path, const Watch& watch) {
      while (plants[path]->cut) {
        watch.check();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      std::unique_ptr<Connection> mine;
      if (kind_ != kMemory) {
        mine = dialled(path, watch);
      } else {
        Ends ends = memory_pair(1, Waiting::kBlock);
        mine = std::move(ends.first);
        const std::lock_guard lock(mutex_);
        offered_[path] = std::move(ends.second);
      }
      plants[path]->reset = false;
      return planted(std::move(mine), plants[path]);
    };
  }

  Dial accept() {
    return [this](std::size_t path, const Watch& watch) {
      if (kind_ != kMemory) return planted(accepted(path, watch), plants[path]);
      for (;;) {
        watch.check();
        {
          const std::lock_guard lock(mutex_);
          if (const auto found = offered_.find(path); found != offered_.end()) {
            auto theirs = std::move(found->second);
            offered_.erase(found);
            return planted(std::move(theirs), plants[path]);
          }
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    };
  }

  // Nothing of it is with a NIC any more; the pages at its ends may be shared with what is.
  bool has_let_go(const std::vector<std::byte>& memory) const {
    constexpr std::size_t kPage = 4096;
    return kind_ != kVerbs || memory.size() <= 3 * kPage ||
           !fake().registered(memory.data() + kPage, memory.size() - 2 * kPage);
  }

  std::vector<std::shared_ptr<Plant>> plants;
  std::vector<std::unique_ptr<Connection>> first, second;
  bool ours = true;  // what is sent and received, or it is a GPU's

 private:
  Ends meeting(std::size_t i) {
    Ends ends;
    const Watch watch(5 * kSecond);
    together([&] { ends.first = dialled(i, watch); }, [&] { ends.second = accepted(i, watch); });
    return ends;
  }

  std::unique_ptr<Connection> dialled(std::size_t i, const Watch& watch) {
    return over(
        i, tcp_connect("127.0.0.1", listeners_[i]->port(), token(), 1, Waiting::kBlock, "", watch));
  }
  std::unique_ptr<Connection> accepted(std::size_t i, const Watch& watch) {
    return over(i, listeners_[i]->accept(token(), 1, Waiting::kBlock, watch));
  }
  std::unique_ptr<Connection> over(std::size_t i, std::unique_ptr<Connection> made) {
    if (kind_ == kTcp) return made;
    VerbsSpec spec;
    spec.path.device = i % 2 == 0 ? "fake0" : "fake1";
    return verbs_over(std::move(made), spec, Waiting::kBlock, Watch(5 * kSecond));
  }

  Kind kind_;
  std::vector<std::unique_ptr<TcpListener>> listeners_;
  std::mutex mutex_;
  std::map<std::size_t, std::unique_ptr<Connection>> offered_;
};

inline SenderSpec quick(Policy policy = Policy::kPull) {
  SenderSpec spec;
  spec.scheduler.policy = policy;
  spec.scheduler.block = 16 << 10;
  spec.scheduler.horizon = 5 * kMilli;
  spec.scheduler.stall = 40 * kMilli;
  spec.health.patience = 200 * kMilli;
  spec.health.first_pause = 5 * kMilli;
  return spec;
}

inline std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

struct Seen {
  std::vector<PathCounts> sent;
  std::vector<ArrivalCounts> arrived;
  std::vector<Event> events;
  Nanos took = 0;
  Nanos recovered = 0;  // when all was there that a path had lost
};

// Sends transfers of ``sizes`` and compares every byte. ``during`` runs beside it.
inline Seen exchange(Paths& paths, const SenderSpec& spec, const std::vector<std::size_t>& sizes,
                     const std::function<void(const std::atomic<bool>& over)>& during = {}) {
  std::vector<std::vector<std::byte>> source, target;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    source.push_back(random_bytes(sizes[i], i + 1));
    target.emplace_back(sizes[i], std::byte{0xEE});
  }
  Seen seen;
  std::atomic<bool> over{false};
  std::thread other;
  if (during) other = std::thread([&] { during(over); });
  const Nanos begin = now();
  try {
    together(
        [&] {
          Sender sender(spec, std::move(paths.first), paths.dial());
          std::vector<std::uint64_t> numbers;
          numbers.reserve(source.size());
          for (const auto& data : source) numbers.push_back(sender.post(data, paths.ours));
          const Watch watch(kPatience);
          for (std::size_t i = 0; i < numbers.size(); ++i) {
            sender.wait(numbers[i], watch);
            // Done is done: nobody reads it any more.
            CHECK(paths.has_let_go(source[i]));
            std::fill(source[i].begin(), source[i].end(), std::byte{0xDD});
          }
          seen.took = now() - begin;
          seen.recovered = sender.scheduler().recovered();
          sender.finish(watch);
          for (std::size_t i = 0; i < sender.paths(); ++i)
            seen.sent.push_back(sender.scheduler().counts(i));
          seen.events.assign(sender.events().begin(), sender.events().end());
        },
        [&] {
          Receiver receiver({.block = spec.scheduler.block}, std::move(paths.second),
                            paths.accept());
          std::vector<std::uint64_t> numbers;
          numbers.reserve(target.size());
          for (auto& data : target) numbers.push_back(receiver.post(data, 0, paths.ours));
          const Watch watch(kPatience);
          for (std::size_t i = 0; i < numbers.size(); ++i) {
            receiver.wait(numbers[i], watch);
            CHECK_EQUAL(receiver.size(numbers[i]), sizes[i]);
            CHECK(target[i] == random_bytes(sizes[i], i + 1));
            // Done is done: nobody writes to it any more.
            CHECK(paths.has_let_go(target[i]));
            std::fill(target[i].begin(), target[i].end(), std::byte{0});
          }
          receiver.finish(watch);
          for (std::size_t i = 0; i < receiver.paths(); ++i)
            seen.arrived.push_back(receiver.counts(i));
        });
  } catch (...) {
    over = true;
    if (other.joinable()) other.join();
    throw;
  }
  over = true;
  if (other.joinable()) other.join();
  for (const auto& data : target)
    CHECK(std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; }));
  return seen;
}

inline void sleep_for(Nanos time) { std::this_thread::sleep_for(std::chrono::nanoseconds(time)); }

inline const std::vector<std::size_t> kSizes = {0,       1,        0, 100, 16 << 10, (16 << 10) + 1,
                                                1 << 20, 3'000'001};

inline std::size_t sum(const std::vector<std::size_t>& sizes) {
  std::size_t all = 0;
  for (const std::size_t size : sizes) all += size;
  return all;
}

inline bool happened(const Seen& seen, std::size_t path, Cause cause) {
  return std::any_of(seen.events.begin(), seen.events.end(), [&](const Event& event) {
    return event.path == path && event.cause == cause;
  });
}

inline void every_policy_delivers(Paths::Kind kind) {
  for (const Policy policy :
       {Policy::kSingle, Policy::kRoundRobin, Policy::kEqual, Policy::kWeighted, Policy::kPull})
    for (const std::size_t count : {1U, 2U, 5U}) {
      Paths paths(kind, count);
      SenderSpec spec = quick(policy);
      spec.scheduler.weights.assign(count, 1.5);
      const Seen seen = exchange(paths, spec, kSizes);
      std::uint64_t delivered = 0;
      for (const PathCounts& counts : seen.sent) delivered += counts.delivered;
      CHECK_EQUAL(delivered, sum(kSizes));
    }
}

}  // namespace cwai_test

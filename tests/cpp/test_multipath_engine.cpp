// Both ends of the multipath engine over memory and TCP, with faults planted while data flows.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <iostream>
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

using namespace cwai;
using namespace cwai::multipath;
using namespace cwai_test;

namespace {

constexpr Nanos kMilli = 1'000'000;
constexpr Nanos kPatience = 20 * kSecond;

// Several paths that can be planted with faults, and connected again.
class Paths {
 public:
  enum Kind { kMemory, kTcp };

  Paths(Kind kind, std::size_t count) : kind_(kind) {
    for (std::size_t i = 0; i < count; ++i) {
      plants.push_back(std::make_shared<Plant>());
      if (kind == kTcp) listeners_.push_back(std::make_unique<TcpListener>("127.0.0.1", 0, 1));
      Ends ends = kind == kTcp ? tcp(i) : memory_pair(1, Waiting::kBlock);
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
      if (kind_ == kTcp) {
        mine = tcp_connect("127.0.0.1", listeners_[path]->port(), token(), 1, Waiting::kBlock, "",
                           watch);
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
      if (kind_ == kTcp)
        return planted(listeners_[path]->accept(token(), 1, Waiting::kBlock, watch), plants[path]);
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

  std::vector<std::shared_ptr<Plant>> plants;
  std::vector<std::unique_ptr<Connection>> first, second;

 private:
  Ends tcp(std::size_t i) {
    Ends ends;
    const Watch watch(5 * kSecond);
    together([&] { ends.first = listeners_[i]->accept(token(), 1, Waiting::kBlock, watch); },
             [&] {
               ends.second = tcp_connect("127.0.0.1", listeners_[i]->port(), token(), 1,
                                         Waiting::kBlock, "", watch);
             });
    return ends;
  }

  Kind kind_;
  std::vector<std::unique_ptr<TcpListener>> listeners_;
  std::mutex mutex_;
  std::map<std::size_t, std::unique_ptr<Connection>> offered_;
};

SenderSpec quick(Policy policy = Policy::kPull) {
  SenderSpec spec;
  spec.scheduler.policy = policy;
  spec.scheduler.block = 16 << 10;
  spec.scheduler.horizon = 5 * kMilli;
  spec.scheduler.stall = 40 * kMilli;
  spec.health.patience = 200 * kMilli;
  spec.health.first_pause = 5 * kMilli;
  return spec;
}

std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
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
};

// Sends transfers of ``sizes`` and compares every byte. ``during`` runs beside it.
Seen exchange(Paths& paths, const SenderSpec& spec, const std::vector<std::size_t>& sizes,
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
          for (const auto& data : source) numbers.push_back(sender.post(data));
          const Watch watch(kPatience);
          for (std::size_t i = 0; i < numbers.size(); ++i) {
            sender.wait(numbers[i], watch);
            // Done is done: nobody reads it any more.
            std::fill(source[i].begin(), source[i].end(), std::byte{0xDD});
          }
          seen.took = now() - begin;
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
          for (auto& data : target) numbers.push_back(receiver.post(data));
          const Watch watch(kPatience);
          for (std::size_t i = 0; i < numbers.size(); ++i) {
            receiver.wait(numbers[i], watch);
            CHECK_EQUAL(receiver.size(numbers[i]), sizes[i]);
            CHECK(target[i] == random_bytes(sizes[i], i + 1));
            // Done is done: nobody writes to it any more.
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

void sleep_for(Nanos time) { std::this_thread::sleep_for(std::chrono::nanoseconds(time)); }

const std::vector<std::size_t> kSizes = {0,       1,        0, 100, 16 << 10, (16 << 10) + 1,
                                         1 << 20, 3'000'001};

std::size_t sum(const std::vector<std::size_t>& sizes) {
  std::size_t all = 0;
  for (const std::size_t size : sizes) all += size;
  return all;
}

void every_policy_delivers(Paths::Kind kind) {
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

bool happened(const Seen& seen, std::size_t path, Cause cause) {
  return std::any_of(seen.events.begin(), seen.events.end(), [&](const Event& event) {
    return event.path == path && event.cause == cause;
  });
}

// 8 MB over paths of 40, 20 and 10 MB/s take 115 ms; something happens to the first.
Seen with_trouble(Paths::Kind kind, const std::function<void(Plant&)>& trouble) {
  Paths paths(kind, 3);
  for (std::size_t i = 0; i < 3; ++i) paths.plants[i]->rate = 40e6 / (1 << i);
  return exchange(paths, quick(), {8'000'000, 500'000}, [&](const std::atomic<bool>&) {
    sleep_for(40 * kMilli);
    trouble(*paths.plants[0]);
  });
}

}  // namespace

TEST(multipath_engine_every_policy_over_memory) { every_policy_delivers(Paths::kMemory); }
TEST(multipath_engine_every_policy_over_tcp) { every_policy_delivers(Paths::kTcp); }

TEST(multipath_engine_a_path_is_cut) {
  for (const auto kind : {Paths::kMemory, Paths::kTcp}) {
    const Seen seen = with_trouble(kind, [](Plant& plant) { plant.cut = true; });
    CHECK(happened(seen, 0, Cause::kStalled));
    CHECK(seen.sent[0].delivered > 0);
    CHECK(seen.sent[1].again + seen.sent[2].again > 0);
  }
}

TEST(multipath_engine_a_path_is_reset_and_comes_back) {
  for (const auto kind : {Paths::kMemory, Paths::kTcp}) {
    Paths paths(kind, 2);
    for (auto& plant : paths.plants) plant->rate = 20e6;
    const Seen seen = exchange(paths, quick(), {12'000'000}, [&](const std::atomic<bool>&) {
      sleep_for(40 * kMilli);
      paths.plants[0]->reset = true;
    });
    CHECK(happened(seen, 0, Cause::kError));
    CHECK(happened(seen, 0, Cause::kConnected));
    CHECK(happened(seen, 0, Cause::kAnswered));
    CHECK(happened(seen, 0, Cause::kDelivered));
  }
}

TEST(multipath_engine_broken_bytes_are_sent_again) {
  for (const auto kind : {Paths::kMemory, Paths::kTcp}) {
    const Seen seen = with_trouble(kind, [](Plant& plant) { plant.corrupt = 3; });
    CHECK_EQUAL(seen.arrived[0].corrupt, 3U);
    CHECK(happened(seen, 0, Cause::kCorrupt));
  }
}

TEST(multipath_engine_all_paths_are_down_and_back) {
  for (const auto kind : {Paths::kMemory, Paths::kTcp}) {
    Paths paths(kind, 2);
    for (auto& plant : paths.plants) plant->rate = 20e6;
    const Seen seen = exchange(paths, quick(), {4'000'000}, [&](const std::atomic<bool>&) {
      sleep_for(20 * kMilli);
      for (auto& plant : paths.plants) plant->cut = true;
      sleep_for(400 * kMilli);
      for (auto& plant : paths.plants) plant->cut = false;
    });
    CHECK(seen.took > 400 * kMilli);
    CHECK(happened(seen, 0, Cause::kStalled) && happened(seen, 1, Cause::kStalled));
  }
}

TEST(multipath_engine_says_what_was_delivered_when_no_path_is_left) {
  Paths paths(Paths::kTcp, 2);
  for (auto& plant : paths.plants) plant->rate = 20e6;
  const std::vector<std::byte> source = random_bytes(4'000'000, 1);
  std::vector<std::byte> target(source.size());
  const auto fails = [](const std::function<void()>& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      CHECK(error.fault() == Fault::kDeadline);
      return error.subject();
    }
    return "";
  };
  std::string sent, received;
  together(
      [&] {
        Sender sender(quick(), std::move(paths.first), {});
        const std::uint64_t number = sender.post(source);
        while (sender.delivered(number) == 0) sender.progress(now() + kMilli);
        for (auto& plant : paths.plants) plant->cut = true;
        sent = fails([&] { sender.wait(number, Watch(600 * kMilli)); });
        for (std::size_t i = 0; i < 2; ++i) CHECK(!sender.alive(i));
      },
      [&] {
        Receiver receiver({.block = 16 << 10}, std::move(paths.second), {});
        received = fails([&] { receiver.wait(receiver.post(target), Watch(700 * kMilli)); });
      });
  CHECK(sent.starts_with("transfer 0: ") && sent.ends_with(" of 4000000 bytes"));
  CHECK(!sent.starts_with("transfer 0: 0 of"));
  CHECK(received.starts_with("transfer 0: ") && received.ends_with(" of 4000000 bytes"));
}

TEST(multipath_engine_without_resending_the_first_fault_is_the_end) {
  Paths paths(Paths::kTcp, 2);
  for (auto& plant : paths.plants) plant->rate = 20e6;
  SenderSpec spec = quick();
  spec.resend = false;
  const std::vector<std::byte> source = random_bytes(4'000'000, 1);
  std::vector<std::byte> target(source.size());
  std::atomic<bool> over{false};
  together(
      [&] {
        Sender sender(spec, std::move(paths.first), {});
        const std::uint64_t number = sender.post(source);
        while (sender.delivered(number) == 0) sender.progress(now() + kMilli);
        paths.plants[0]->cut = true;
        CHECK_FAULT(sender.wait(number, Watch(kPatience)), Fault::kTransfer);
        over = true;
      },
      [&] {
        Receiver receiver({.block = 16 << 10}, std::move(paths.second), {});
        receiver.post(target);
        while (!over) receiver.progress(now() + kMilli);
      });
}

TEST(multipath_engine_buffers_are_told_with_their_tags) {
  Paths paths(Paths::kTcp, 2);
  const std::vector<std::byte> source = random_bytes(700, 3);
  std::vector<std::byte> first(1000);
  std::vector<std::byte> second;
  together(
      [&] {
        Sender sender(quick(), std::move(paths.first), paths.dial());
        const Watch watch(kPatience);
        while (!sender.room_for(1)) {
          watch.check();
          sender.progress(watch.slice_end());
        }
        CHECK_EQUAL(sender.room_for(0).value().bytes, 1000U);
        CHECK_EQUAL(sender.room_for(0).value().tag, 41U);
        CHECK_EQUAL(sender.room_for(1).value().bytes, 0U);
        CHECK_EQUAL(sender.room_for(1).value().tag, 42U);
        CHECK(!sender.room_for(2));
        sender.post(source);
        sender.wait(sender.post({}), watch);
        CHECK(!sender.room_for(0) && !sender.room_for(1));
        sender.finish(watch);
      },
      [&] {
        Receiver receiver({.block = 16 << 10}, std::move(paths.second), paths.accept());
        const Watch watch(kPatience);
        receiver.post(first, 41);
        receiver.wait(receiver.post(second, 42), watch);
        receiver.wait(0, watch);
        CHECK_EQUAL(receiver.size(0), 700U);
        CHECK_EQUAL(receiver.size(1), 0U);
        receiver.finish(watch);
      });
  CHECK(std::equal(source.begin(), source.end(), first.begin()));
}

TEST(multipath_engine_connections_may_be_offered) {
  Paths paths(Paths::kTcp, 1);
  const std::vector<std::byte> source = random_bytes(100'000, 3);
  std::vector<std::byte> target(source.size());
  together(
      [&] {
        Sender sender(quick(), std::move(paths.first), {});
        const Watch watch(kPatience);
        sender.wait(sender.post(source), watch);
        sender.finish(watch);
      },
      [&] {
        std::vector<std::unique_ptr<Connection>> none(1);
        Receiver receiver({.block = 16 << 10}, std::move(none), {});
        std::thread other([&] { receiver.offer(0, std::move(paths.second[0])); });
        const Watch watch(kPatience);
        receiver.wait(receiver.post(target), watch);
        other.join();
        receiver.finish(watch);
      });
  CHECK(source == target);
}

TEST(multipath_engine_a_buffer_that_is_too_small_is_named) {
  Paths paths(Paths::kMemory, 1);
  const std::vector<std::byte> source(1000);
  std::vector<std::byte> target(999);
  together(
      [&] {
        Sender sender(quick(), std::move(paths.first), {});
        const std::uint64_t number = sender.post(source);
        CHECK_FAULT(sender.wait(number, Watch(kPatience)), Fault::kDisagreed);
      },
      [&] {
        Receiver receiver({.block = 16 << 10}, std::move(paths.second), {});
        CHECK_FAULT(receiver.wait(receiver.post(target), Watch(200 * kMilli)), Fault::kDeadline);
      });
}

// 500 transfers, each with a fault or two at a random time: every byte is compared.
TEST(multipath_engine_hundreds_of_faulty_transfers) {
  const char* one = std::getenv("CWAI_SEED");
  const std::uint64_t begin = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  const std::uint64_t end = one != nullptr ? begin + 1 : 41;
  for (std::uint64_t seed = begin; seed < end; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](std::size_t low, std::size_t high) {
      return std::uniform_int_distribution<std::size_t>(low, high)(random);
    };
    Paths paths(seed % 2 == 0 ? Paths::kMemory : Paths::kTcp, pick(2, 6));
    for (auto& plant : paths.plants) plant->rate = static_cast<double>(pick(5, 60)) * 1e6;
    std::vector<std::size_t> sizes(13);
    for (std::size_t& size : sizes) size = pick(0, 5) == 0 ? 0 : pick(1, 600'000);
    try {
      exchange(paths, quick(), sizes, [&](const std::atomic<bool>& over) {
        while (!over) {
          Plant& plant = *paths.plants[pick(0, paths.plants.size() - 1)];
          sleep_for(static_cast<Nanos>(pick(1, 12)) * kMilli);
          switch (pick(0, 4)) {
            case 0:
              plant.cut = true;
              sleep_for(static_cast<Nanos>(pick(1, 120)) * kMilli);
              break;
            case 1:
              plant.reset = true;
              break;
            case 2:
              plant.corrupt += 2;
              break;
            case 3:
              plant.rate = plant.rate / 8;
              sleep_for(static_cast<Nanos>(pick(1, 30)) * kMilli);
              plant.rate = plant.rate * 8;
              break;
            default:
              for (auto& each : paths.plants) each->cut = true;
              sleep_for(static_cast<Nanos>(pick(1, 60)) * kMilli);
          }
          for (auto& each : paths.plants) each->cut = false;
        }
      });
    } catch (...) {
      std::cerr << "CWAI_SEED=" << seed << "\n";
      throw;
    }
  }
}

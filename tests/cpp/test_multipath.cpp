// The scheduler, the ledger and the health of paths on a virtual clock: random faults, replayed by
// their seed.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "multipath/health.hpp"
#include "multipath/ledger.hpp"
#include "multipath/scheduler.hpp"
#include "runner.hpp"
#include "support/error.hpp"

using namespace cwai;
using namespace cwai::multipath;

namespace {

constexpr Nanos kMilli = 1'000'000;

// One path as the world is: what is on it, how fast it goes, what is wrong with it.
struct Wire {
  struct Message {
    Run run;
    std::size_t bytes;
    double left;  // bytes
    bool begun = false, in_place = false, broken = false;
    std::uint32_t written = 0;  // blocks
  };
  struct Answer {
    Run run;
    bool good;
    Nanos at;
    std::uint32_t epoch;
  };
  double rate = 0;  // bytes per second
  Nanos delay = 0;  // of an answer
  double factor = 1;
  bool cut = false;
  bool refuses = false;         // nobody can connect
  bool loses_all = false;       // what is sent vanishes: silence that no repair ends
  int breaks = 0, doubles = 0;  // so many of the next messages arrive broken, or twice
  std::deque<Message> messages;
  std::deque<Answer> answers;
  std::uint32_t epoch = 0;
  Nanos connected_at = kNever, probed_at = kNever;
};

struct Trouble {
  Nanos at;
  std::size_t path;
  enum Kind {
    kCut,
    kHeal,
    kSlow,
    kRecover,
    kReset,
    kBreak,
    kDouble,
    kRefuse,
    kWelcome,
    kLose
  } kind;
};

struct World {
  std::vector<Wire> wires;
  std::vector<std::size_t> transfers;
  std::vector<Trouble> faults;  // in order of time
  SchedulerSpec spec;
  HealthSpec health;
  Nanos end = 3600 * kSecond;
};

struct Outcome {
  Nanos took = 0;
  std::uint64_t sent = 0, again = 0, wanted = 0;
  Nanos longest_hold = 0;
};

// Sends all transfers through the world. Every failure of a promise throws.
class Simulation {
 public:
  explicit Simulation(World world)
      : w_(std::move(world)),
        scheduler_(w_.spec, w_.wires.size()),
        health_(w_.wires.size(), PathHealth(w_.health)) {
    for (const std::size_t bytes : w_.transfers) {
      const std::uint64_t number = scheduler_.add(bytes);
      const std::size_t blocks =
          std::max<std::size_t>((bytes + w_.spec.block - 1) / w_.spec.block, 1);
      CHECK_EQUAL(number, ledgers_.size());
      ledgers_.emplace_back(static_cast<std::uint32_t>(blocks), w_.wires.size());
      data_.emplace_back(blocks, 0);
      accepted_.emplace_back(blocks, false);
    }
    for (std::size_t i = 0; i < w_.wires.size(); ++i) scheduler_.open(i, 1);
  }

  Outcome run() {
    while (!finished()) {
      hand_out();
      const Nanos next = next_event();
      CHECK(next != kNever);  // stuck: nothing would ever happen again
      CHECK(next <= w_.end);
      advance(std::max(next, at_));
      settle();
    }
    Outcome outcome{.took = at_};
    for (const std::size_t bytes : w_.transfers) outcome.wanted += bytes;
    std::uint64_t delivered = 0;
    for (std::size_t i = 0; i < w_.wires.size(); ++i) {
      outcome.sent += scheduler_.counts(i).sent;
      outcome.again += scheduler_.counts(i).again;
      delivered += scheduler_.counts(i).delivered;
    }
    CHECK_EQUAL(delivered, outcome.wanted);
    for (std::size_t t = 0; t < ledgers_.size(); ++t) {
      CHECK(ledgers_[t].complete());
      CHECK_EQUAL(scheduler_.delivered(t), w_.transfers[t]);
      for (const int value : data_[t]) CHECK_EQUAL(value, kRight);
    }
    return outcome;
  }

 private:
  static constexpr int kRight = 1, kWrong = 2;

  bool finished() const {
    for (std::size_t t = 0; t < ledgers_.size(); ++t)
      if (!scheduler_.done(t)) return false;
    return true;
  }

  void hand_out() {
    for (bool some = true; some;) {
      some = false;
      for (std::size_t i = 0; i < w_.wires.size(); ++i) {
        const auto run = scheduler_.next(i, at_);
        if (!run) continue;
        some = true;
        Wire& wire = w_.wires[i];
        CHECK(run->count > 0);
        // A header travels, whatever follows it.
        const std::size_t bytes = std::max<std::size_t>(scheduler_.bytes(*run), 64);
        if (wire.loses_all) continue;
        const bool broken = wire.breaks > 0;
        if (broken) --wire.breaks;
        wire.messages.push_back({*run, bytes, static_cast<double>(bytes), false, false, broken, 0});
        if (wire.doubles > 0) {
          --wire.doubles;
          wire.messages.push_back(wire.messages.back());
        }
      }
    }
  }

  Nanos finish(const Wire& wire) const {
    if (wire.messages.empty() || wire.cut) return kNever;
    return at_ + std::max<Nanos>(1, nanos(wire.messages.front().left / (wire.rate * wire.factor)));
  }

  Nanos next_event() const {
    Nanos next = scheduler_.due();
    if (fault_ < w_.faults.size()) next = std::min(next, w_.faults[fault_].at);
    for (std::size_t i = 0; i < w_.wires.size(); ++i) {
      const Wire& wire = w_.wires[i];
      next = std::min({next, finish(wire), health_[i].due(), wire.connected_at, wire.probed_at});
      if (!wire.answers.empty() && !wire.cut) next = std::min(next, wire.answers.front().at);
    }
    return next;
  }

  void advance(Nanos to) {
    for (std::size_t i = 0; i < w_.wires.size(); ++i) {
      Wire& wire = w_.wires[i];
      if (wire.messages.empty() || wire.cut) continue;
      Wire::Message& head = wire.messages.front();
      if (!std::exchange(head.begun, true))
        head.in_place = ledgers_[head.run.transfer].claim(i, head.run);
      head.left -= seconds(to - at_) * wire.rate * wire.factor;
      const auto come = static_cast<double>(head.bytes) - head.left;
      write(head, static_cast<std::uint32_t>(come / static_cast<double>(w_.spec.block)));
      if (head.left > 1e-3 + wire.rate * wire.factor * 2e-9) continue;
      const Wire::Message message = head;
      wire.messages.pop_front();
      receive(i, message, to);
    }
    at_ = to;
  }

  void put(const Run& run, int value) {
    for (std::uint32_t block = run.first; block < run.first + run.count; ++block) {
      // What was accepted is never written again.
      CHECK(!accepted_[run.transfer][block]);
      data_[run.transfer][block] = value;
    }
  }

  // Blocks are written where they belong as they come.
  void write(Wire::Message& message, std::uint32_t blocks) {
    for (; message.written < std::min(blocks, message.run.count); ++message.written)
      if (message.in_place)
        put({message.run.transfer, message.run.first + message.written, 1},
            message.broken ? kWrong : kRight);
  }

  void receive(std::size_t path, Wire::Message message, Nanos at) {
    Ledger& ledger = ledgers_[message.run.transfer];
    write(message, message.run.count);
    if (message.broken) {
      ledger.release(path);
    } else {
      for (const std::size_t rival : ledger.rivals(path, message.run)) {
        w_.wires[rival].messages.front().in_place = false;
        ledger.release(rival);
      }
      const std::vector<Run> missing = ledger.settle(path, message.run);
      for (const Run& run : missing) {
        if (!message.in_place) put(run, kRight);
        for (std::uint32_t block = run.first; block < run.first + run.count; ++block) {
          CHECK(!accepted_[run.transfer][block]);
          accepted_[run.transfer][block] = true;
        }
      }
    }
    Wire& wire = w_.wires[path];
    wire.answers.push_back({message.run, !message.broken, at + wire.delay, wire.epoch});
  }

  // The receiving end gives the old connection up, and then nothing of it arrives any more.
  void fence(std::size_t path) {
    Wire& wire = w_.wires[path];
    if (!wire.messages.empty() && wire.messages.front().begun)
      ledgers_[wire.messages.front().run.transfer].release(path);
    wire.messages.clear();
    wire.answers.clear();
    ++wire.epoch;
  }

  void fail(std::size_t path) {
    Wire& wire = w_.wires[path];
    scheduler_.lose(path);
    scheduler_.open(path, 0);
    health_[path].fail(at_);
    wire.connected_at = wire.probed_at = kNever;
    ++wire.epoch;  // what still comes over the old one is accepted, but its answers are not heard
  }

  void settle() {
    for (; fault_ < w_.faults.size() && w_.faults[fault_].at <= at_; ++fault_)
      happen(w_.faults[fault_]);
    for (std::size_t i = 0; i < w_.wires.size(); ++i) {
      Wire& wire = w_.wires[i];
      while (!wire.answers.empty() && !wire.cut && wire.answers.front().at <= at_) {
        const Wire::Answer answer = wire.answers.front();
        wire.answers.pop_front();
        if (answer.epoch != wire.epoch) continue;
        if (answer.good) {
          scheduler_.deliver(i, answer.run, at_);
          health_[i].deliver(at_);
        } else {
          scheduler_.reject(i, answer.run, at_);
        }
        open(i);
      }
    }
    scheduler_.look(at_);
    for (std::size_t i = 0; i < w_.wires.size(); ++i) {
      Wire& wire = w_.wires[i];
      if (scheduler_.stalled(i)) health_[i].stall(at_);
      if (health_[i].overdue(at_)) fail(i);
      if (health_[i].dial(at_)) {
        health_[i].dialling();
        wire.connected_at = at_ + 2 * wire.delay + kMilli;
      }
      if (wire.connected_at <= at_) {
        wire.connected_at = kNever;
        if (wire.cut || wire.refuses) {
          health_[i].fail(at_);
        } else {
          fence(i);
          wire.loses_all = false;
          health_[i].connect(at_);
          wire.probed_at = at_ + 2 * wire.delay + kMilli;
        }
      }
      if (wire.probed_at <= at_ && !wire.cut) {
        health_[i].answer(at_);
        wire.probed_at =
            health_[i].state() == PathState::kProbing ? at_ + 2 * wire.delay + kMilli : kNever;
        open(i);
      } else if (wire.probed_at <= at_) {
        wire.probed_at = at_ + kMilli;
      }
    }
  }

  void open(std::size_t path) { scheduler_.open(path, health_[path].share()); }

  void happen(const Trouble& fault) {
    Wire& wire = w_.wires[fault.path];
    switch (fault.kind) {
      case Trouble::kCut:
        wire.cut = true;
        break;
      case Trouble::kHeal:
        wire.cut = false;
        break;
      case Trouble::kSlow:
        wire.factor = 1.0 / 8;
        break;
      case Trouble::kRecover:
        wire.factor = 1;
        break;
      case Trouble::kReset:
        if (health_[fault.path].state() != PathState::kFailed) fail(fault.path);
        break;
      case Trouble::kBreak:
        wire.breaks += 3;
        break;
      case Trouble::kDouble:
        wire.doubles += 3;
        break;
      case Trouble::kRefuse:
        wire.refuses = true;
        break;
      case Trouble::kWelcome:
        wire.refuses = false;
        break;
      case Trouble::kLose:
        if (health_[fault.path].share() > 0) {
          if (!wire.messages.empty() && wire.messages.front().begun)
            ledgers_[wire.messages.front().run.transfer].release(fault.path);
          wire.messages.clear();
          wire.loses_all = true;
        }
        break;
    }
  }

  World w_;
  Scheduler scheduler_;
  std::vector<PathHealth> health_;
  std::vector<Ledger> ledgers_;
  std::vector<std::vector<int>> data_;
  std::vector<std::vector<bool>> accepted_;
  Nanos at_ = 0;
  std::size_t fault_ = 0;
};

double uniform(std::mt19937_64& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}
std::size_t pick(std::mt19937_64& random, std::size_t low, std::size_t high) {
  return std::uniform_int_distribution<std::size_t>(low, high)(random);
}

World random_world(std::mt19937_64& random, Policy policy) {
  World world;
  world.spec.policy = policy;
  world.spec.block = pick(random, 0, 1) == 0 ? 64 << 10 : 4096;
  world.spec.longest_run = static_cast<std::uint32_t>(pick(random, 1, 16));
  const std::size_t paths = pick(random, 1, 8);
  double all = 0;
  for (std::size_t i = 0; i < paths; ++i) {
    Wire wire;
    wire.rate = std::exp(uniform(random, std::log(5e6), std::log(2e8)));
    wire.delay = nanos(std::exp(uniform(random, std::log(2e-5), std::log(5e-3))));
    all += wire.rate;
    world.wires.push_back(wire);
    world.spec.weights.push_back(wire.rate);
  }
  const std::size_t transfers = pick(random, 1, 4);
  for (std::size_t i = 0; i < transfers; ++i)
    world.transfers.push_back(pick(random, 0, 7) == 0 ? 0
                                                      : static_cast<std::size_t>(std::exp(
                                                            uniform(random, 0, std::log(4e6)))));
  return world;
}

// Any mix of faults, on any paths, several at once; each ends some time, so that all can arrive.
void add_faults(std::mt19937_64& random, World& world) {
  double all = 0, rate = 0;
  for (const std::size_t bytes : world.transfers) all += static_cast<double>(bytes);
  for (const Wire& wire : world.wires) rate += wire.rate;
  const double about = all / rate;
  for (std::size_t i = pick(random, 0, 6); i > 0; --i) {
    const std::size_t path = pick(random, 0, world.wires.size() - 1);
    const Nanos at = nanos(uniform(random, 0, 2 * about));
    const Nanos until = at + nanos(std::exp(uniform(random, std::log(1e-3), std::log(20.0))));
    switch (pick(random, 0, 6)) {
      case 0:
        world.faults.push_back({at, path, Trouble::kCut});
        world.faults.push_back({until, path, Trouble::kHeal});
        break;
      case 1:
        world.faults.push_back({at, path, Trouble::kSlow});
        world.faults.push_back({until, path, Trouble::kRecover});
        break;
      case 2:
        world.faults.push_back({at, path, Trouble::kReset});
        break;
      case 3:
        world.faults.push_back({at, path, Trouble::kBreak});
        break;
      case 4:
        world.faults.push_back({at, path, Trouble::kDouble});
        break;
      case 5:
        world.faults.push_back({at, path, Trouble::kReset});
        world.faults.push_back({at, path, Trouble::kRefuse});
        world.faults.push_back({until, path, Trouble::kWelcome});
        break;
      default:
        world.faults.push_back({at, path, Trouble::kLose});
        break;
    }
  }
  if (pick(random, 0, 9) == 0) {  // all of them at once, down and back
    const Nanos at = nanos(uniform(random, 0, about));
    const Nanos until = at + nanos(uniform(random, 0.01, 5));
    for (std::size_t path = 0; path < world.wires.size(); ++path) {
      world.faults.push_back({at, path, Trouble::kCut});
      world.faults.push_back({until, path, Trouble::kHeal});
    }
  }
  std::stable_sort(world.faults.begin(), world.faults.end(),
                   [](const Trouble& a, const Trouble& b) { return a.at < b.at; });
}

// CWAI_SEED=N replays one, CWAI_SCHEDULES=N does more than the tests do.
template <typename Body>
void for_each_seed(std::uint64_t base, std::uint64_t count, const Body& body) {
  const char* one = std::getenv("CWAI_SEED");
  const char* many = std::getenv("CWAI_SCHEDULES");
  if (one != nullptr) base = std::strtoull(one, nullptr, 10), count = 1;
  if (one == nullptr && many != nullptr) count = std::strtoull(many, nullptr, 10);
  for (std::uint64_t seed = base; seed < base + count; ++seed) {
    std::mt19937_64 random(seed);
    try {
      body(random);
    } catch (...) {
      std::cerr << "CWAI_SEED=" << seed << " replays this\n";
      throw;
    }
  }
}

void faults_lose_nothing(Policy policy, std::uint64_t base, std::uint64_t count) {
  for_each_seed(base, count, [&](std::mt19937_64& random) {
    World world = random_world(random, policy);
    add_faults(random, world);
    Simulation(world).run();
  });
}

}  // namespace

TEST(multipath_faults_lose_nothing_1) { faults_lose_nothing(Policy::kPull, 1'000'000, 30'000); }
TEST(multipath_faults_lose_nothing_2) { faults_lose_nothing(Policy::kPull, 2'000'000, 30'000); }
TEST(multipath_faults_lose_nothing_3) { faults_lose_nothing(Policy::kPull, 3'000'000, 30'000); }

// Without faults: S/R; at the beginning the answers until the windows are as large as paths are
// long, each at least 1.5 times the last; at the end what the slowest path may hold, and its
// answer.
TEST(multipath_fills_unequal_paths) {
  for_each_seed(5'000'000, 4'000, [](std::mt19937_64& random) {
    World world = random_world(random, Policy::kPull);
    double bytes = 0, rate = 0, slowest = 1e18, delay = 0, ramp = 0;
    for (const Wire& wire : world.wires) {
      rate += wire.rate;
      const double first = 2 * static_cast<double>(world.spec.block);
      const double held = wire.rate * seconds(wire.delay);
      ramp = std::max(ramp,
                      std::log(std::max(1.0, held / first)) / std::log(1.5) * seconds(wire.delay));
      slowest = std::min(slowest, wire.rate);
      delay = std::max(delay, seconds(wire.delay));
    }
    for (const std::size_t transfer : world.transfers) bytes += static_cast<double>(transfer);
    const double run = static_cast<double>(world.spec.block * world.spec.longest_run);
    const Outcome outcome = Simulation(world).run();
    const double horizon = std::max(seconds(world.spec.horizon), 2 * delay);
    const double tail =
        std::max(2 * static_cast<double>(world.spec.block) / slowest, 1.5 * horizon) + 4 * delay;
    CHECK(seconds(outcome.took) <= bytes / rate + ramp + tail);
    CHECK(static_cast<double>(outcome.again) <= 0.02 * static_cast<double>(outcome.sent) + run);
  });
}

namespace {

// 64 MiB over 400, 200, 100 and 50 Mb/s; of the least time that could be, how much is that?
double efficiency(Policy policy, const std::vector<Trouble>& faults, double least,
                  double* again = nullptr) {
  World world;
  world.spec.policy = policy;
  world.spec.weights = {8, 4, 2, 1};
  for (const double rate : {50e6, 25e6, 12.5e6, 6.25e6}) {
    Wire wire;
    wire.rate = rate;
    wire.delay = kMilli / 5;
    world.wires.push_back(wire);
  }
  world.transfers = {std::size_t{64} << 20};
  world.faults = faults;
  const Outcome outcome = Simulation(world).run();
  if (again != nullptr)
    *again = static_cast<double>(outcome.again) / static_cast<double>(outcome.wanted);
  return least / seconds(outcome.took);
}

constexpr double kAll = 64 << 20, kRates = 93.75e6;

}  // namespace

TEST(multipath_policies_side_by_side) {
  const double least = kAll / kRates;
  double again = 0;
  CHECK(efficiency(Policy::kPull, {}, least, &again) > 0.97);
  CHECK(again <= 0.02);
  CHECK(efficiency(Policy::kWeighted, {}, least) > 0.95);
  const double equal = efficiency(Policy::kEqual, {}, least);
  CHECK(equal > 0.25 && equal < 0.28);  // N times the slowest over the sum: 0.267
  const double turns = efficiency(Policy::kRoundRobin, {}, least);
  CHECK(turns > 0.25 && turns < 0.29);
  const double single = efficiency(Policy::kSingle, {}, least);
  CHECK(single > 0.51 && single < 0.54);
}

TEST(multipath_fastest_path_is_cut) {
  const Nanos at = 200 * kMilli;
  const double left = kAll - kRates * seconds(at);
  const double least = seconds(at) + left / (kRates - 50e6);
  CHECK(efficiency(Policy::kPull, {{at, 0, Trouble::kCut}}, least) > 0.95);
}

TEST(multipath_fastest_path_slows_down) {
  const Nanos at = 200 * kMilli;
  const double left = kAll - kRates * seconds(at);
  const double least = seconds(at) + left / (kRates - 50e6 * 7 / 8);
  CHECK(efficiency(Policy::kPull, {{at, 0, Trouble::kSlow}}, least) > 0.95);
}

TEST(multipath_one_path_flaps) {
  std::vector<Trouble> faults;
  for (Nanos at = 100 * kMilli; at < 10 * kSecond; at += kSecond) {
    faults.push_back({at, 0, Trouble::kCut});
    faults.push_back({at + kSecond / 2, 0, Trouble::kHeal});
  }
  // Of what the steady ones carry alone.
  double again = 0;
  CHECK(efficiency(Policy::kPull, faults, kAll / (kRates - 50e6), &again) > 0.90);
  CHECK(again <= 0.03);
}

TEST(multipath_health_tries_for_ever_and_more_seldom) {
  const HealthSpec spec;
  PathHealth health(spec);
  CHECK_EQUAL(health.share(), 1);
  health.stall(0);
  CHECK(health.state() == PathState::kSuspect);
  health.deliver(kMilli);
  CHECK(health.state() == PathState::kHealthy);
  health.stall(2 * kMilli);
  CHECK(!health.overdue(2 * kMilli + spec.patience - 1));
  CHECK(health.overdue(2 * kMilli + spec.patience));
  Nanos at = 2 * kSecond, pause = spec.first_pause;
  for (int i = 0; i < 40; ++i) {
    health.fail(at);
    CHECK(!health.dial(at + pause - 1));
    CHECK(health.dial(at + pause));
    health.dialling();
    CHECK(!health.dial(at + pause));
    at += pause;
    pause = std::min(2 * pause, spec.longest_pause);
  }
  CHECK_EQUAL(pause, spec.longest_pause);
  CHECK_EQUAL(health.failures(), 1U);
  health.connect(at);
  CHECK(health.state() == PathState::kProbing && health.share() == 0);
  for (std::uint32_t i = 0; i < spec.probes; ++i) health.answer(at);
  CHECK(health.state() == PathState::kProbation);
  CHECK_EQUAL(health.share(), spec.probation);
  for (std::uint32_t i = 0; i < spec.runs; ++i) health.deliver(at);
  CHECK(health.state() == PathState::kHealthy);
  health.fail(at);  // and the pauses are short again
  CHECK(health.dial(at + spec.first_pause));
}

TEST(multipath_a_transfer_of_nothing_is_one_empty_block) {
  Scheduler scheduler({}, 2);
  for (std::size_t path : {0U, 1U}) scheduler.open(path, 1);
  const Run empty{scheduler.add(0), 0, 1};
  CHECK(!scheduler.done(empty.transfer));
  CHECK(scheduler.next(0, 1) == empty);
  CHECK_EQUAL(scheduler.bytes(empty), 0U);
  scheduler.lose(0);
  CHECK(scheduler.next(1, 2) == empty);
  scheduler.deliver(1, empty, 3);
  CHECK(scheduler.done(empty.transfer));
  CHECK_EQUAL(scheduler.counts(1).delivered, 0U);
  // It says nothing about how slow a path is.
  CHECK(scheduler.rate(1, 4) > 0);
}

TEST(multipath_scheduler_refuses_what_cannot_be) {
  CHECK_FAULT(Scheduler({}, 0), Fault::kInvalid);
  CHECK_FAULT(Scheduler({.block = 0}, 1), Fault::kInvalid);
  CHECK_FAULT(Scheduler({.longest_run = 0}, 1), Fault::kInvalid);
  CHECK_FAULT(Scheduler({.policy = Policy::kWeighted, .weights = {1}}, 2), Fault::kInvalid);
  CHECK_FAULT(Scheduler({.policy = Policy::kWeighted, .weights = {1, -1}}, 2), Fault::kInvalid);
  Scheduler scheduler({}, 1);
  CHECK(!scheduler.next(0, 0));
  CHECK_EQUAL(scheduler.due(), kNever);
}

TEST(multipath_other_policies_lose_nothing) {
  faults_lose_nothing(Policy::kSingle, 4'000'000, 3'000);
  faults_lose_nothing(Policy::kRoundRobin, 4'100'000, 3'000);
  faults_lose_nothing(Policy::kEqual, 4'200'000, 3'000);
  faults_lose_nothing(Policy::kWeighted, 4'300'000, 3'000);
}

TEST(multipath_ledger_what_cannot_be_copied_is_written_over) {
  Ledger ledger(8, 2);
  CHECK(ledger.claim(0, {0, 0, 4}));
  ledger.settle(0, {0, 0, 4});
  CHECK(!ledger.claim(1, {0, 2, 4}));       // some of it is there
  CHECK(!ledger.claim_over(1, {0, 1, 3}));  // all of it is
  CHECK(ledger.claim_over(1, {0, 2, 4}));
  CHECK(!ledger.claim_over(0, {0, 5, 3}));  // another one writes there
  CHECK_EQUAL(ledger.rivals(0, {0, 5, 3}).size(), 1U);
  CHECK_EQUAL(ledger.settle(1, {0, 2, 4}).size(), 1U);
  CHECK(ledger.claim_over(0, {0, 5, 3}));
  CHECK_EQUAL(ledger.settle(0, {0, 5, 3}).size(), 1U);
  CHECK(ledger.complete());
}

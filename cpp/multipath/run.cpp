#include "multipath/run.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/pattern.hpp"
#include "transport/faulty.hpp"
#include "transport/verbs.hpp"

namespace cwai::multipath {
namespace {

constexpr Nanos kCheckSlice = 1'000'000;
constexpr Nanos kMeetPatience = 10 * kSecond;

// Connections of one path are kept apart from those of the others.
Token of_path(Token token, std::size_t path) {
  token[0] ^= static_cast<std::byte>(path & 0xFF);
  token[1] ^= static_cast<std::byte>(path >> 8 & 0xFF);
  return token;
}

void check(const Work& work) {
  if (work.bytes == 0) throw Error(Fault::kInvalid, "bytes 0");
  if (work.transfers == 0) throw Error(Fault::kInvalid, "transfers 0");
  if (work.connections == 0 || work.connections > kMostConnections)
    throw Error(Fault::kInvalid, "connections " + std::to_string(work.connections));
}

// The n-th of the engine's paths is connection n % connections of path n / connections.
std::vector<PathEvent> since(const std::deque<Event>& events, Nanos start,
                             std::size_t connections) {
  std::vector<PathEvent> all;
  all.reserve(events.size());
  for (Event event : events) {
    const std::size_t one = event.path;
    event.at = std::max<Nanos>(event.at - start, 0);
    event.path = one / connections;
    all.push_back({event, one % connections});
  }
  return all;
}

// The first byte on a connection says which of its path it is.
void say_which(Connection& connection, std::size_t which, const Watch& watch) {
  const std::array<std::byte, 1> said{static_cast<std::byte>(which)};
  Completion done{};
  connection.post_send(0, said, 0);
  while (connection.wait({&done, 1}, watch.slice_end()) == 0) watch.check();
  if (done.status != 0) throw Error(Fault::kPeerClosed, connection.remote(), done.status);
}

std::size_t hear_which(Connection& connection, std::size_t connections, const Watch& watch) {
  std::array<std::byte, 1> said{};
  Completion done{};
  connection.post_receive(0, said, 0);
  while (connection.wait({&done, 1}, watch.slice_end()) == 0) watch.check();
  const auto which = std::to_integer<std::size_t>(said[0]);
  if (done.status != 0) throw Error(Fault::kPeerClosed, connection.remote(), done.status);
  if (which >= connections) throw Error(Fault::kDisagreed, "connections");
  return which;
}

// Both ends call it on a connection that they have just made.
std::unique_ptr<Connection> over(std::unique_ptr<Connection> made,
                                 const std::optional<verbs::PathSpec>& nic, const Watch& watch) {
  if (!nic) return made;
  return verbs_over(std::move(made), {.path = *nic, .lanes = 1}, Waiting::kBlock, watch);
}

// Where the connections of one path are accepted, each waited for on a thread of its own: one of
// these accepts for all, and whoever came is handed to whom it is for.
class Entrance {
 public:
  Entrance(TcpListener& listener, const Token& token, std::size_t connections)
      : listener_(listener), token_(token), connections_(connections) {}

  std::unique_ptr<Connection> accept(std::size_t which, const Watch& watch) {
    std::unique_lock lock(mutex_);
    for (;;) {
      watch.check();
      if (const auto found = came_.find(which); found != came_.end()) {
        std::unique_ptr<Connection> made = std::move(found->second);
        came_.erase(found);
        return made;
      }
      if (accepting_) {
        changed_.wait_for(lock, std::chrono::nanoseconds(kSlice));
        continue;
      }
      accepting_ = true;
      lock.unlock();
      std::unique_ptr<Connection> made;
      std::size_t whose = 0;
      std::exception_ptr failed;
      try {
        made = listener_.accept(token_, 1, Waiting::kBlock, watch);
      } catch (...) {
        failed = std::current_exception();
      }
      if (made) try {
          whose = hear_which(*made, connections_, watch.within(kMeetPatience));
        } catch (const Error&) {
          made.reset();  // it left again; the next may come
        }
      lock.lock();
      accepting_ = false;
      changed_.notify_all();
      if (failed) std::rethrow_exception(failed);
      if (made) came_[whose] = std::move(made);  // an older one that nobody has taken is no more
    }
  }

 private:
  TcpListener& listener_;
  Token token_;
  std::size_t connections_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool accepting_ = false;
  std::map<std::size_t, std::unique_ptr<Connection>> came_;
};

// What ends a run early is part of its result; what somebody else asked for is not.
template <typename Body>
Ended until_it_fails(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.fault() == Fault::kStopped || error.fault() == Fault::kInvalid) throw;
    return {std::string(fault_name(error.fault())), error.subject(), error.code()};
  }
  return {};
}

// The better off, the higher.
int rank(PathState state) {
  switch (state) {
    case PathState::kHealthy:
      return 4;
    case PathState::kProbation:
      return 3;
    case PathState::kSuspect:
      return 2;
    case PathState::kProbing:
      return 1;
    case PathState::kFailed:
      return 0;
  }
  return 0;
}

// What a connection of a path came to.
void add(PathResult& path, const Sender& sender, std::size_t one) {
  const PathCounts& counts = sender.scheduler().counts(one);
  path.counts.sent += counts.sent;
  path.counts.delivered += counts.delivered;
  path.counts.again += counts.again;
  path.counts.lost += counts.lost;
  path.counts.stalls += counts.stalls;
  path.failures += sender.health(one).failures();
  if (const PathState state = sender.health(one).state(); rank(state) > rank(path.state))
    path.state = state;
  const std::vector<std::uint64_t>& timeline = sender.timeline(one);
  path.timeline.resize(std::max(path.timeline.size(), timeline.size()));
  for (std::size_t i = 0; i < timeline.size(); ++i) path.timeline[i] += timeline[i];
}

// Puts faults on and takes them away when it is time.
class Rehearse {
 public:
  Rehearse(const std::vector<Rehearsal>& all, std::vector<std::shared_ptr<Plant>> plants,
           std::size_t connections)
      : plants_(std::move(plants)), connections_(connections) {
    for (const Rehearsal& one : all) {
      if (one.path >= plants_.size())
        throw Error(Fault::kInvalid, "path " + std::to_string(one.path));
      steps_.push_back({one.begin, one, true});
      if (one.kind != Rehearsal::Kind::kCorrupt) steps_.push_back({one.end, one, false});
    }
    std::stable_sort(steps_.begin(), steps_.end(),
                     [](const Step& a, const Step& b) { return a.at < b.at; });
  }

  void act(Nanos at) {
    for (; next_ < steps_.size() && steps_[next_].at <= at; ++next_) {
      const auto& [when, what, begins] = steps_[next_];
      Plant& plant = *plants_[what.path];
      switch (what.kind) {
        case Rehearsal::Kind::kCut:
          plant.cut = begins;
          break;
        case Rehearsal::Kind::kReset:
          plant.reset = begins;
          break;
        case Rehearsal::Kind::kSlow:
          plant.rate = begins ? what.rate / static_cast<double>(connections_) : 0;
          break;
        case Rehearsal::Kind::kCorrupt:
          plant.corrupt += 1;
          break;
      }
    }
  }
  Nanos due() const { return next_ < steps_.size() ? steps_[next_].at : kNever; }

 private:
  struct Step {
    Nanos at;
    Rehearsal what;
    bool begins;
  };
  std::vector<std::shared_ptr<Plant>> plants_;
  std::size_t connections_;  // that share one
  std::vector<Step> steps_;
  std::size_t next_ = 0;
};

}  // namespace

// --------------------------------------------------------------------------------------- receiving

Listeners::Listeners(const std::vector<std::string>& addresses,
                     std::vector<std::optional<verbs::PathSpec>> nics)
    : nics_(std::move(nics)) {
  if (addresses.empty()) throw Error(Fault::kInvalid, "paths 0");
  if (nics_.empty()) nics_.resize(addresses.size());
  if (nics_.size() != addresses.size())
    throw Error(Fault::kInvalid, "nics " + std::to_string(nics_.size()));
  for (const std::string& address : addresses)
    listeners_.push_back(std::make_unique<TcpListener>(address, 0, 1));
}

std::vector<int> Listeners::ports() const {
  std::vector<int> ports;
  ports.reserve(listeners_.size());
  for (const auto& listener : listeners_) ports.push_back(listener->port());
  return ports;
}

ReceiveResult Listeners::receive(const Token& token, const Work& work) {
  check(work);
  const Watch watch(work.timeout);
  const Nanos start = now();
  Buffer target(work.bytes);
  std::deque<Entrance> entrances;
  for (std::size_t path = 0; path < listeners_.size(); ++path)
    entrances.emplace_back(*listeners_[path], of_path(token, path), work.connections);
  Receiver receiver({.block = work.block},
                    std::vector<std::unique_ptr<Connection>>(listeners_.size() * work.connections),
                    [&](std::size_t one, const Watch& accepting) {
                      const std::size_t path = one / work.connections;
                      auto made = entrances[path].accept(one % work.connections, accepting);
                      return over(std::move(made), nics_[path], accepting.within(kMeetPatience));
                    });
  ReceiveResult result;
  result.ended = until_it_fails([&] {
    for (std::uint32_t i = 0; i < work.transfers; ++i) {
      receiver.wait(receiver.post({target.data(), work.bytes}), watch);
      // Beside it, so that paths that are late are heard meanwhile.
      Mismatch found;
      std::atomic<bool> checked{false};
      std::thread checking([&] {
        found = check_pattern(target.data(), work.bytes, work.seed + i);
        checked = true;
      });
      while (!checked) receiver.progress(now() + kCheckSlice);
      checking.join();
      result.wrong += found.wrong;
      if (result.first_bad < 0) result.first_bad = found.first_bad;
      ++result.complete;
    }
    receiver.finish(watch);
  });
  result.paths.resize(listeners_.size());
  for (std::size_t i = 0; i < receiver.paths(); ++i) {
    ArrivalCounts& path = result.paths[i / work.connections];
    const ArrivalCounts& one = receiver.counts(i);
    path.bytes += one.bytes;
    path.twice += one.twice;
    path.corrupt += one.corrupt;
    path.broken += one.broken;
  }
  result.events = since(receiver.events(), start, work.connections);
  return result;
}

// ----------------------------------------------------------------------------------------- sending

SendResult send(const std::vector<Route>& routes, const Token& token, const SenderSpec& spec,
                const Work& work, const std::vector<Rehearsal>& rehearsals, Nanos patience) {
  check(work);
  SenderSpec mine = spec;
  mine.scheduler.block = work.block;
  std::vector<std::shared_ptr<Plant>> plants;
  plants.reserve(routes.size());
  for (std::size_t i = 0; i < routes.size(); ++i) plants.push_back(std::make_shared<Plant>());
  Rehearse rehearse(rehearsals, plants, work.connections);
  const Dial dial = [&](std::size_t one, const Watch& watch) -> std::unique_ptr<Connection> {
    const std::size_t path = one / work.connections;
    // A path that is cut for a rehearsal cannot be connected either.
    while (plants[path]->cut || plants[path]->reset) {
      watch.check();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const Route& route = routes[path];
    auto made = tcp_connect(route.remote, route.port, of_path(token, path), 1, Waiting::kBlock,
                            route.local, watch);
    say_which(*made, one % work.connections, watch);
    made = over(std::move(made), route.nic, watch);
    return rehearsals.empty() ? std::move(made) : planted(std::move(made), plants[path]);
  };
  Buffer source(work.bytes);
  auto connections = dial_all(routes.size() * work.connections, dial, patience);

  SendResult result;
  result.paths.resize(routes.size());
  for (std::size_t i = 0; i < connections.size(); ++i)
    if (connections[i] != nullptr) result.paths[i / work.connections].connected = true;
  fill_pattern(source.data(), work.bytes, work.seed);
  const Watch watch(work.timeout);
  Sender sender(mine, std::move(connections), dial);
  result.ended = until_it_fails([&] {
    for (std::uint32_t i = 0; i < work.transfers; ++i) {
      if (i > 0) fill_pattern(source.data(), work.bytes, work.seed + i);
      Nanos begin = 0;
      const std::uint64_t number = sender.post({source.data(), work.bytes});
      while (!sender.done(number)) {
        // From the first byte on, which ends a progress().
        const bool begun = i > 0 || begin != 0;
        if (begun) rehearse.act(now() - sender.start());
        // Until the next step of the rehearsal; wait() says what is missing when time is over.
        const Nanos due = begun ? rehearse.due() : kNever;
        if (now() >= watch.deadline() || stop_requested()) sender.wait(number, watch);
        sender.progress(std::min(watch.slice_end(), due == kNever ? kNever : sender.start() + due));
        if (begin == 0) begin = sender.begun(number);
      }
      result.times.push_back(seconds(now() - begin));
    }
    sender.finish(watch);
  });
  for (std::size_t i = 0; i < sender.paths(); ++i) {
    add(result.paths[i / work.connections], sender, i);
    result.delivered += sender.scheduler().counts(i).delivered;
  }
  const Nanos start = sender.start();
  result.start = seconds(start);
  result.step = seconds(sender.step());
  if (const Nanos at = sender.scheduler().recovered(); at != 0)
    result.recovered = seconds(at - start);
  result.events = since(sender.events(), start, work.connections);
  return result;
}

}  // namespace cwai::multipath

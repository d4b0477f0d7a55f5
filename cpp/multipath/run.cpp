#include "multipath/run.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/pattern.hpp"
#include "transport/faulty.hpp"

namespace cwai::multipath {
namespace {

constexpr Nanos kCheckSlice = 1'000'000;

// Connections of one path are kept apart from those of the others.
Token of_path(Token token, std::size_t path) {
  token[0] ^= static_cast<std::byte>(path & 0xFF);
  token[1] ^= static_cast<std::byte>(path >> 8 & 0xFF);
  return token;
}

void check(const Work& work) {
  if (work.bytes == 0) throw Error(Fault::kInvalid, "bytes 0");
  if (work.transfers == 0) throw Error(Fault::kInvalid, "transfers 0");
}

std::vector<Event> since(const std::deque<Event>& events, Nanos start) {
  std::vector<Event> all(events.begin(), events.end());
  for (Event& event : all) event.at -= start;
  return all;
}

// What ends a run early is part of its result; what somebody else asked for is not.
template <typename Body>
void until_it_fails(std::string& fault, std::string& why, const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.fault() == Fault::kStopped || error.fault() == Fault::kInvalid) throw;
    fault = fault_name(error.fault());
    why = error.subject();
  }
}

// Puts faults on and takes them away when it is time.
class Rehearse {
 public:
  Rehearse(const std::vector<Rehearsal>& all, std::vector<std::shared_ptr<Plant>> plants)
      : plants_(std::move(plants)) {
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
          plant.rate = begins ? what.rate : 0;
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
  std::vector<Step> steps_;
  std::size_t next_ = 0;
};

}  // namespace

// --------------------------------------------------------------------------------------- receiving

Listeners::Listeners(const std::vector<std::string>& addresses) {
  if (addresses.empty()) throw Error(Fault::kInvalid, "paths 0");
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
  Receiver receiver(
      {.block = work.block}, std::vector<std::unique_ptr<Connection>>(listeners_.size()),
      [&](std::size_t path, const Watch& accepting) {
        return listeners_[path]->accept(of_path(token, path), 1, Waiting::kBlock, accepting);
      });
  ReceiveResult result;
  until_it_fails(result.fault, result.why, [&] {
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
  for (std::size_t i = 0; i < receiver.paths(); ++i) result.paths.push_back(receiver.counts(i));
  result.events = since(receiver.events(), start);
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
  Rehearse rehearse(rehearsals, plants);
  const Dial dial = [&](std::size_t path, const Watch& watch) -> std::unique_ptr<Connection> {
    // A path that is cut for a rehearsal cannot be connected either.
    while (plants[path]->cut || plants[path]->reset) {
      watch.check();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const Route& route = routes[path];
    auto made = tcp_connect(route.remote, route.port, of_path(token, path), 1, Waiting::kBlock,
                            route.local, watch);
    return rehearsals.empty() ? std::move(made) : planted(std::move(made), plants[path]);
  };
  Buffer source(work.bytes);
  auto connections = dial_all(routes.size(), dial, patience);
  if (std::none_of(connections.begin(), connections.end(), [](const auto& c) { return !!c; }))
    throw Error(Fault::kConnect, routes.empty() ? "" : routes.front().remote, ETIMEDOUT);

  SendResult result;
  for (const auto& connection : connections) {
    result.paths.emplace_back();
    result.paths.back().connected = connection != nullptr;
  }
  fill_pattern(source.data(), work.bytes, work.seed);
  const Watch watch(work.timeout);
  Sender sender(mine, std::move(connections), dial);
  const Nanos start = sender.start();
  until_it_fails(result.fault, result.why, [&] {
    for (std::uint32_t i = 0; i < work.transfers; ++i) {
      if (i > 0) fill_pattern(source.data(), work.bytes, work.seed + i);
      Nanos begin = 0;
      const std::uint64_t number = sender.post({source.data(), work.bytes});
      while (!sender.done(number)) {
        rehearse.act(now() - start);
        // Until the next step of the rehearsal; wait() says what is missing when time is over.
        const Nanos due = rehearse.due();
        if (now() >= watch.deadline() || stop_requested()) sender.wait(number, watch);
        sender.progress(std::min(watch.slice_end(), due == kNever ? kNever : start + due));
        if (begin == 0) begin = sender.begun(number);
      }
      result.times.push_back(seconds(now() - begin));
    }
    sender.finish(watch);
  });
  for (std::size_t i = 0; i < sender.paths(); ++i) {
    PathResult& path = result.paths[i];
    path.counts = sender.scheduler().counts(i);
    path.failures = sender.health(i).failures();
    path.state = sender.health(i).state();
    path.timeline = sender.timeline(i);
    result.delivered += path.counts.delivered;
  }
  result.start = seconds(start);
  result.step = seconds(sender.step());
  if (const Nanos at = sender.scheduler().recovered(); at != 0)
    result.recovered = seconds(at - start);
  result.events = since(sender.events(), start);
  return result;
}

}  // namespace cwai::multipath

#include "nccl_plugin/door.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "nccl_plugin/log.hpp"
#include "nccl_plugin/thread.hpp"
#include "support/error.hpp"

namespace cwai::nccl_net {
namespace {

constexpr Nanos kGreetingTimeout = 2 * kSecond;
constexpr Nanos kAnswerPatience = kSecond;
constexpr std::size_t kMostGuests = 1024;
constexpr int kLook = 200;  // ms

}  // namespace

struct Door::Guest {
  Socket socket;
  Nanos deadline;
  GreetingBytes bytes{};
  std::size_t got = 0;
  bool done = false;
};

Door::Door(std::vector<Rail>& rails, const Settings& settings)
    : rails_(rails), settings_(settings) {
  for (auto rail = rails.begin(); rail != rails.end();) {
    try {
      Socket socket = tcp_listen(rail->address);
      rail->port = tcp_port(socket);
      sockets_.push_back(std::move(socket));
      ++rail;
    } catch (const Error& error) {
      warn("no path by " + rail->name + ": " + error.what());
      rail = rails.erase(rail);
    }
  }
  if (rails.empty()) throw Error(Fault::kListen, "no interface can be listened at");
  start_thread("cwai-net-door", [this] { watch(); });
}

std::shared_ptr<Listening> Door::listen() {
  auto one = std::make_shared<Listening>();
  fill_random(one->token);
  const std::lock_guard lock(mutex_);
  listening_[one->token] = one;
  return one;
}

std::shared_ptr<RecvComm> Door::next(Listening& listening) {
  const std::lock_guard lock(mutex_);
  auto& arrived = listening.arrived;
  const auto found = std::find_if(arrived.begin(), arrived.end(),
                                  [](const auto& comm) { return comm->connected(); });
  if (found == arrived.end()) return nullptr;
  auto comm = *found;
  arrived.erase(found);
  return comm;
}

void Door::close(const Listening& listening) {
  std::deque<std::shared_ptr<RecvComm>> left;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = listening_.find(listening.token); found != listening_.end()) {
      left.swap(found->second->arrived);
      listening_.erase(found);
    }
  }
  for (const auto& comm : left) comm->close();
}

Greeting Door::answer(const Greeting& greeting, std::shared_ptr<RecvComm>& joins) {
  const std::lock_guard lock(mutex_);
  if (greeting.word == Word::kMeet) {
    const auto listening = listening_.find(greeting.token);
    if (listening == listening_.end()) return {};
    const auto mine = usable(rails_, settings_.transport);
    Agreement agreed = agree(greeting.rails, mine, greeting.count);
    for (Route& path : agreed.routes) std::swap(path.local, path.remote);
    Greeting met{.word = Word::kMet,
                 .count = static_cast<std::uint16_t>(agreed.routes.size()),
                 .rails = mine};
    const std::string peer = greeting.rails.empty() ? "?" : greeting.rails.front().address;
    if (agreed.routes.empty()) {
      warn("receiving from " + peer + ": " + kNoPath);
      return met;
    }
    fill_random(met.session);
    auto comm = std::make_shared<RecvComm>(peer, std::move(agreed), settings_);
    comm->start();
    std::erase_if(sessions_, [](const auto& one) { return one.second.comm.expired(); });
    sessions_[met.session] = {greeting.token, comm};
    listening->second->arrived.push_back(std::move(comm));
    return met;
  }
  if (greeting.word != Word::kJoin) return {};
  const auto session = sessions_.find(greeting.session);
  if (session == sessions_.end() || session->second.token != greeting.token) return {};
  joins = session->second.comm.lock();
  if (joins == nullptr || joins->failure() != kSuccess) return {};
  return {.word = Word::kJoined};
}

// Reads what has come of a greeting, and answers it when that is all.
void Door::settle(Guest& guest) {
  // No lock is held, and it never blocks.
  // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection)
  const ssize_t n = ::recv(guest.socket.fd(), guest.bytes.data() + guest.got,
                           kGreetingSize - guest.got, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) guest.got += static_cast<std::size_t>(n);
  if (n > 0 && guest.got < kGreetingSize) return;
  guest.done = true;
  if (n <= 0) return;
  const auto greeting = decode(guest.bytes);
  if (!greeting) return;
  std::shared_ptr<RecvComm> joins;
  const GreetingBytes said = encode(answer(*greeting, joins));
  try {
    tcp_send(guest.socket, said, "", Watch(kAnswerPatience));
  } catch (const Error&) {
    return;  // it is gone already
  }
  if (joins != nullptr) joins->join(greeting->path, std::move(guest.socket));
}

void Door::watch() noexcept {
  std::vector<Guest> guests;
  std::vector<pollfd> polls;
  for (;;) {
    polls.clear();
    for (const Socket& socket : sockets_)
      polls.push_back({.fd = socket.fd(), .events = POLLIN, .revents = 0});
    for (const Guest& guest : guests)
      polls.push_back({.fd = guest.socket.fd(), .events = POLLIN, .revents = 0});
    if (::poll(polls.data(), polls.size(), guests.empty() ? -1 : kLook) < 0) continue;
    for (std::size_t i = 0; i < guests.size(); ++i) {
      if (polls[sockets_.size() + i].revents == 0) continue;
      try {
        settle(guests[i]);
      } catch (const std::exception& error) {
        guests[i].done = true;
        warn(std::string("a connection was turned away: ") + error.what());
      }
    }
    std::erase_if(guests, [](const Guest& guest) { return guest.done || now() > guest.deadline; });
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if ((polls[i].revents & POLLIN) == 0) continue;
      Socket socket(::accept4(sockets_[i].fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (socket && guests.size() < kMostGuests) {
        guests.push_back({.socket = std::move(socket), .deadline = now() + kGreetingTimeout});
      } else if (!socket && (errno == EMFILE || errno == ENFILE)) {
        warn("a connection was turned away: no file descriptor is left (ulimit -n)");
        std::this_thread::sleep_for(std::chrono::milliseconds(kLook));
      }
    }
  }
}

}  // namespace cwai::nccl_net

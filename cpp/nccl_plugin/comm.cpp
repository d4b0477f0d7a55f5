#include "nccl_plugin/comm.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>
#include <type_traits>
#include <utility>

#include "nccl_plugin/log.hpp"
#include "nccl_plugin/thread.hpp"
#include "support/error.hpp"
#include "transport/verbs.hpp"

namespace cwai::nccl_net {
namespace {

using multipath::PathState;
using multipath::Receiver;
using multipath::Sender;

constexpr Nanos kReport = 100'000'000;
constexpr Nanos kTryPatience = 2 * kSecond;    // of one connection, until it is greeted
constexpr Nanos kFirstPatience = 1 * kSecond;  // of all paths at the beginning,
constexpr Nanos kNicPatience = 5 * kSecond;    // and where NICs are to be opened first
constexpr Nanos kNicHorizon = 2'000'000;
constexpr Nanos kNicStall = 20'000'000;
constexpr Nanos kPause = 50'000'000;
constexpr Nanos kGoodbye = 5 * kSecond;

// Comms that were closed, whose threads are still at work. Never destroyed: one may outlive main().
struct Leaving {
  std::mutex mutex;
  std::condition_variable left;
  std::set<const Comm*> comms;
};
Leaving& leaving() {
  static Leaving* const one = new Leaving;
  return *one;
}

// So that a path on which nothing comes back any more ends, and is made anew.
void watch_over(const Socket& socket, Nanos timeout) {
  const auto option = [&](int level, int name, int value) {
    setsockopt(socket.fd(), level, name, &value, sizeof value);
  };
  const auto in_seconds = static_cast<int>(timeout / kSecond);
  option(SOL_SOCKET, SO_KEEPALIVE, 1);
  option(IPPROTO_TCP, TCP_KEEPIDLE, std::clamp(in_seconds / 4, 1, 15));
  option(IPPROTO_TCP, TCP_KEEPINTVL, std::clamp(in_seconds / 4, 1, 5));
  option(IPPROTO_TCP, TCP_USER_TIMEOUT, in_seconds * 1000);
}

Result result_of(const Error& error) {
  switch (error.fault()) {
    case Fault::kDeadline:
    case Fault::kRejected:
    case Fault::kConnect:
      return kRemoteError;
    default:
      return kSystemError;
  }
}

std::string text_of(const Error& error) {
  std::string text(fault_name(error.fault()));
  if (!error.subject().empty()) text.append(", ").append(error.subject());
  if (error.code() != 0) text.append(": ").append(std::strerror(error.code()));
  return text;
}

std::string shown(const PathStatus& path) {
  return path.rdma ? path.local_name + " > " + path.remote_name : path.local + " > " + path.remote;
}

std::string because(multipath::Cause cause, int code) {
  std::string text = std::string(" (") + multipath::cause_name(cause);
  if (code != 0) text.append(": ").append(std::strerror(code));
  return text + ")";
}

Greeting greet(const Socket& socket, const Greeting& greeting, const std::string& peer,
               const Watch& watch) {
  tcp_send(socket, encode(greeting), peer, watch);
  GreetingBytes bytes{};
  tcp_receive(socket, bytes, peer, watch);
  const auto answer = decode(bytes);
  if (!answer) throw Error(Fault::kGarbled, peer);
  if (answer->word == Word::kNo)
    throw Error(Fault::kRejected, peer + " does not know this connection, or has closed it");
  return *answer;
}

// Of one connection, from NIC to NIC; both ends call it on what they have greeted each other on.
std::unique_ptr<Connection> over_nic(std::unique_ptr<Connection> control, const Rail& local,
                                     const Settings& settings,
                                     const std::shared_ptr<const verbs::DmaBufs>& dma_bufs,
                                     const Watch& watch) {
  VerbsSpec spec{.path = settings.nic, .lanes = 1, .dma_bufs = dma_bufs};
  spec.path.device = local.device;
  spec.path.port = local.device_port;
  return verbs_over(std::move(control), spec, Waiting::kBlock, watch);
}

std::uint64_t post(Sender& sender, std::span<std::byte> data, std::uint32_t, bool ours) {
  return sender.post(data, ours);
}
std::uint64_t post(Receiver& receiver, std::span<std::byte> data, std::uint32_t tag, bool ours) {
  return receiver.post(data, tag, ours);
}
std::size_t size_of(const Sender&, std::uint64_t, std::size_t posted) { return posted; }
std::size_t size_of(const Receiver& receiver, std::uint64_t transfer, std::size_t) {
  return receiver.size(transfer);
}

// Of a sending end: something was delivered. The other end answers whether or not its NCCL calls,
// so it is at fault if that stands still.
struct Pulse {
  std::uint64_t delivered = 0;
  bool beats(const Sender& sender) {
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < sender.paths(); ++i) all += sender.scheduler().counts(i).delivered;
    return std::exchange(delivered, all) != all;
  }
  // Of a receiving end: there is a path. The other end may have nothing to send for long.
  bool beats(const Receiver& receiver) {
    for (std::size_t i = 0; i < receiver.paths(); ++i)
      if (receiver.alive(i)) return true;
    return false;
  }
};

void fill(PathStatus& status, const Sender& sender, std::size_t path) {
  const auto& counts = sender.scheduler().counts(path);
  status.state = sender.health(path).state();
  status.bytes = counts.delivered;
  status.lost = counts.lost;
  status.stalls = counts.stalls;
  status.failures = sender.health(path).failures();
}
void fill(PathStatus& status, const Receiver& receiver, std::size_t path) {
  const auto& counts = receiver.counts(path);
  status.state = receiver.alive(path) ? PathState::kHealthy : PathState::kFailed;
  status.bytes = counts.bytes;
  status.lost = counts.twice;
  status.failures = counts.broken;
}

}  // namespace

// ------------------------------------------------------------------------------------ what is
// alike

Comm::Comm(bool sends, std::string peer, const Settings& settings)
    : settings_(settings), peer_(std::move(peer)), sends_(sends) {
  for (Request& request : requests_) request.comm = this;
  status_.sends = sends;
  status_.peer = peer_;
}

void Comm::start() {
  start_thread("cwai-net", [self = shared_from_this()] { self->run(); });
}

void Comm::run() noexcept {
  try {
    work();
  } catch (const Error& error) {
    const bool forbidden = error.fault() == Fault::kTransfer && !settings_.resend;
    if (error.fault() != Fault::kStopped)
      fail(result_of(error),
           text_of(error) +
               (forbidden ? ", and nothing is sent again (CTCCL_IB_RETRY_DISABLE)" : ""));
  } catch (const std::exception& error) {
    fail(kInternalError, error.what());
  }
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  answered_.notify_all();
  Leaving& all = leaving();
  {
    const std::lock_guard lock(all.mutex);
    all.comms.erase(this);
  }
  all.left.notify_all();
}

void Comm::wait_for_all(Nanos patience) {
  Leaving& all = leaving();
  std::unique_lock lock(all.mutex);
  all.left.wait_for(lock, std::chrono::nanoseconds(patience), [&] { return all.comms.empty(); });
}

void Comm::fail(Result result, const std::string& why) {
  bool told = false;
  std::string text = (sends_ ? "sending to " : "receiving from ") + peer_ + ": " + why;
  {
    const std::lock_guard lock(mutex_);
    text += describe_paths();
    failure_ = result;
    status_.error = text;
    told = wish_ == Wish::kWork;
  }
  if (told) warn(text);
}

std::string Comm::describe_paths() const {
  std::string text;
  for (const PathStatus& path : status_.paths) {
    text += (text.empty() ? "; paths: " : ", ") + shown(path) + " " +
            multipath::path_state_name(path.state);
    if (path.cause) text += because(*path.cause, path.code);
  }
  return text;
}

Request* Comm::take() {
  for (Request& request : requests_)
    if (request.state.load() == Request::kFree) {
      request.state = Request::kPending;
      return &request;
    }
  return nullptr;
}

void Comm::order(const Order& order) {
  orders_.push_back(order);
  if (end_ != nullptr) end_->wake();
}

Result Comm::test(Request& request, int* done, int* size) {
  *done = 0;
  if (request.state.load() == Request::kDone) {
    *done = 1;
    if (size != nullptr) *size = static_cast<int>(request.size);
    request.state = Request::kFree;
    return kSuccess;
  }
  return failure();
}

void Comm::close() {
  std::unique_lock lock(mutex_);
  const bool busy = std::any_of(requests_.begin(), requests_.end(), [](const Request& request) {
    return request.state.load() == Request::kPending;
  });
  wish_ = busy ? Wish::kAbort : Wish::kFinish;
  if (end_ == nullptr || busy) given_up_ = true;
  if (end_ != nullptr) end_->wake();
  if (!ended_) {
    const std::lock_guard all(leaving().mutex);
    leaving().comms.insert(this);
  }
  if (busy) answered_.wait(lock, [&] { return ended_; });
}

void Comm::agreed(Agreement agreement) {
  if (!agreement.why_tcp.empty())
    warn((sends_ ? "sending to " : "receiving from ") + peer_ + ": over TCP: " + agreement.why_tcp);
  const std::lock_guard lock(mutex_);
  routes_ = std::move(agreement.routes);
  status_.transport = agreement.transport;
}

// A comm whose thread has ended has no engine, and nothing is registered.
void Comm::leave(Lending& lending) {
  std::unique_lock lock(mutex_);
  lendings_.push_back(&lending);
  if (end_ != nullptr) end_->wake();
  answered_.wait(lock, [&] { return lending.over || ended_; });
  std::erase(lendings_, &lending);
}

void Comm::lend(std::span<const std::byte> memory) {
  Lending lending{.memory = memory, .back = false};
  leave(lending);
  if (lending.refused) throw Error(*lending.refused);
}

void Comm::lend(std::span<const std::byte> memory, int dma_buf, std::uint64_t offset) {
  dma_bufs_->add(memory, dma_buf, offset);
  try {
    lend(memory);
  } catch (...) {
    dma_bufs_->remove(memory);
    throw;
  }
}

void Comm::take_back(std::span<const std::byte> memory) {
  Lending lending{.memory = memory, .back = true};
  leave(lending);
  dma_bufs_->remove(memory);
}

template <typename End>
void Comm::settle(End& end, Lending& lending) {
  try {
    lending.back ? end.release(lending.memory) : end.hold(lending.memory);
  } catch (const Error& error) {
    lending.refused = error;
  }
  {
    const std::lock_guard lock(mutex_);
    lending.over = true;
  }
  answered_.notify_all();
}

CommStatus Comm::status() const {
  const std::lock_guard lock(mutex_);
  CommStatus status = status_;
  status.outstanding = static_cast<std::uint32_t>(std::count_if(
      requests_.begin(), requests_.end(),
      [](const Request& request) { return request.state.load() == Request::kPending; }));
  return status;
}

// What happened to paths: the last thing is kept for each, and said in the log where it matters.
template <typename End>
void Comm::note(const End& end, std::uint64_t& seen) {
  const auto& events = end.events();
  const std::size_t fresh = std::min<std::size_t>(end.noted() - seen, events.size());
  seen = end.noted();
  for (std::size_t i = events.size() - fresh; i < events.size(); ++i) {
    const multipath::Event& event = events[i];
    std::string text;
    {
      const std::lock_guard lock(mutex_);
      PathStatus& path = status_.paths[event.path];
      const bool same = path.cause == event.cause;
      path.cause = event.cause;
      path.code = event.code;
      path.at = event.at;
      // A path that is tried again and again says so once.
      if (!sends_ || (same && event.cause == multipath::Cause::kRefused)) continue;
      text = "path " + shown(path) + ": " + multipath::path_state_name(event.state) +
             because(event.cause, event.code);
    }
    inform(text);
  }
}

template <typename End>
void Comm::report(const End& end) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < status_.paths.size(); ++i) fill(status_.paths[i], end, i);
}

template <typename End>
void Comm::serve(End& end) {
  {
    const std::lock_guard lock(mutex_);
    for (const Route& route : routes_)
      status_.paths.push_back({.local = route.local.address,
                               .remote = route.remote.address,
                               .local_name = route.local.name,
                               .remote_name = route.remote.name,
                               .rdma = route.local.rdma()});
    end_ = &end;
  }
  // However this ends, nobody reaches for it afterwards.
  struct Leave {
    Comm& comm;
    ~Leave() {
      const std::lock_guard lock(comm.mutex_);
      comm.end_ = nullptr;
    }
  } const leave{*this};
  drive(end);
}

template <typename End>
void Comm::drive(End& end) {
  struct Flight {
    std::uint64_t transfer;
    Request* request;
    std::size_t posted;
  };
  std::deque<Flight> flights;
  std::vector<Order> orders;
  std::vector<Lending*> lendings;
  Pulse pulse;
  Nanos beat = now();
  Nanos reported = 0;
  std::uint64_t seen = 0;
  std::uint64_t next_room = 0;
  for (;;) {
    orders.clear();
    lendings.clear();
    Wish wish{};
    {
      const std::lock_guard lock(mutex_);
      orders.swap(orders_);
      lendings.swap(lendings_);
      wish = wish_;
    }
    for (Lending* lending : lendings) settle(end, *lending);
    for (const Order& one : orders)
      flights.push_back({post(end, one.data, one.tag, one.ours), one.request, one.data.size()});
    if (wish == Wish::kAbort) return;
    if (wish == Wish::kFinish) {
      end.finish(Watch(kGoodbye, &given_up_));
      return;
    }
    try {
      end.progress(now() + kSlice);
    } catch (const Error&) {
      note(end, seen);
      report(end);
      throw;
    }
    note(end, seen);

    const std::size_t before = flights.size();
    std::erase_if(flights, [&](const Flight& flight) {
      if (!end.done(flight.transfer)) return false;
      flight.request->size = size_of(end, flight.transfer, flight.posted);
      {
        const std::lock_guard lock(mutex_);
        ++status_.transfers;
        status_.bytes += flight.request->size;
      }
      flight.request->state = Request::kDone;
      return true;
    });
    if constexpr (std::is_same_v<End, Sender>)
      for (auto room = end.room_for(next_room); room; room = end.room_for(++next_room)) {
        const std::lock_guard lock(mutex_);
        rooms_.push_back(*room);
      }

    const Nanos at = now();
    if (flights.empty() || flights.size() < before || pulse.beats(end)) beat = at;
    if (at - reported >= kReport || at - beat > settings_.timeout) {
      report(end);
      reported = at;
    }
    if (at - beat > settings_.timeout)
      throw Error(Fault::kDeadline,
                  sends_ ? "nothing was delivered for " +
                               std::to_string(settings_.timeout / kSecond) + " s (CWAI_NET_TIMEOUT)"
                         : "there was no path for " + std::to_string(settings_.timeout / kSecond) +
                               " s (CWAI_NET_TIMEOUT)");
  }
}

// -------------------------------------------------------------------------------------------
// sending

SendComm::SendComm(Invitation invitation, const std::vector<Rail>& rails, const Settings& settings)
    : Comm(true, invitation.places.front().address, settings),
      invitation_(std::move(invitation)),
      rails_(rails) {}

Result SendComm::isend(std::span<std::byte> data, std::uint32_t tag, bool ours, Request** request) {
  *request = nullptr;
  const std::lock_guard lock(mutex_);
  if (failure() != kSuccess) return failure();
  if (rooms_.empty() || rooms_.front().tag != tag) return kSuccess;
  if (data.size() > rooms_.front().bytes) {
    warn("sending to " + peer_ + ": " + std::to_string(data.size()) +
         " bytes, and the receive has " + std::to_string(rooms_.front().bytes));
    return kInvalidUsage;
  }
  Request* const slot = take();
  if (slot == nullptr) return kSuccess;
  rooms_.pop_front();
  order({data, tag, ours, slot});
  *request = slot;
  return kSuccess;
}

// Any of the addresses will do, by any interface: paths come afterwards.
Greeting SendComm::meet() const {
  const Greeting mine{.word = Word::kMeet,
                      .count = static_cast<std::uint16_t>(settings_.connections),
                      .token = invitation_.token,
                      .rails = usable(rails_, settings_.transport)};
  const Watch watch(settings_.timeout, &given_up_);
  for (;;) {
    Error last(Fault::kConnect, peer_);
    for (const Place& place : invitation_.places) {
      watch.check();
      try {
        const Watch one(std::min(kTryPatience, watch.deadline() - now()), &given_up_);
        const Socket socket = tcp_dial(place.address, place.port, "", one);
        const Greeting answer = greet(socket, mine, place.address, one);
        if (answer.word != Word::kMet) throw Error(Fault::kGarbled, place.address);
        return answer;
      } catch (const Error& error) {
        if (error.fault() == Fault::kRejected) throw;
        last = error;
      }
    }
    if (now() + kPause >= watch.deadline()) throw last;
    std::this_thread::sleep_for(std::chrono::nanoseconds(kPause));
  }
}

std::unique_ptr<Connection> SendComm::dial(std::size_t path, const Watch& watch) const {
  const Route& route = routes_[path];
  try {
    Socket socket = tcp_dial(route.remote.address, route.remote.port, route.local.address, watch);
    const Greeting answer = greet(socket,
                                  {.word = Word::kJoin,
                                   .path = static_cast<std::uint16_t>(path),
                                   .token = invitation_.token,
                                   .session = session_},
                                  route.remote.address, watch);
    if (answer.word != Word::kJoined) throw Error(Fault::kGarbled, route.remote.address);
    watch_over(socket, settings_.timeout);
    auto connection = tcp_connection(std::move(socket), Waiting::kBlock);
    if (!route.local.rdma()) return connection;
    return over_nic(std::move(connection), route.local, settings_, dma_bufs_, watch);
  } catch (const Error& error) {
    // An interface that went away is a path that cannot be had now, and no more.
    if (error.fault() == Fault::kAddress)
      throw Error(Fault::kConnect, route.local.address, EADDRNOTAVAIL);
    throw;
  }
}

void SendComm::work() {
  const Greeting met = meet();
  Agreement all = agree(usable(rails_, settings_.transport), met.rails,
                        static_cast<std::size_t>(settings_.connections));
  if (all.routes.empty()) throw Error(Fault::kRejected, peer_ + ": " + kNoPath);
  if (all.routes.size() != met.count)
    throw Error(Fault::kRejected, peer_ + ": " + std::to_string(met.count) + " paths there, " +
                                      std::to_string(all.routes.size()) + " here");
  agreed(std::move(all));
  {
    const std::lock_guard lock(mutex_);
    session_ = met.session;
  }
  const multipath::Dial dialled = [this](std::size_t path, const Watch& watch) {
    return dial(path, watch);
  };
  std::vector<std::unique_ptr<Connection>> connections;
  const Watch watch(settings_.timeout, &given_up_);
  while (connections.empty()) {
    try {
      connections = multipath::dial_all(routes_.size(), dialled,
                                        over_rdma() ? kNicPatience : kFirstPatience, &given_up_);
    } catch (const Error& error) {
      if (error.fault() == Fault::kStopped || error.fault() == Fault::kInvalid ||
          error.fault() == Fault::kAddress)
        throw;
      if (now() + kPause >= watch.deadline())
        throw Error(Fault::kConnect,
                    peer_ + ": none of " + std::to_string(routes_.size()) +
                        " paths can be connected; the first: " + error.subject(),
                    error.code());
      std::this_thread::sleep_for(std::chrono::nanoseconds(kPause));
    }
  }
  multipath::SenderSpec spec;
  spec.resend = settings_.resend;
  if (over_rdma()) {
    // A NIC answers soon, and cannot be told otherwise of what it sends.
    spec.scheduler.horizon = kNicHorizon;
    spec.scheduler.stall = kNicStall;
    spec.scheduler.duplicates = 0;
  }
  spec.health.longest_pause = std::clamp(settings_.timeout / 8, kSecond / 4, 10 * kSecond);
  Sender sender(spec, std::move(connections), dialled);
  connected_ = true;
  serve(sender);
}

// -----------------------------------------------------------------------------------------
// receiving

RecvComm::RecvComm(std::string peer, Agreement agreement, const Settings& settings)
    : Comm(false, std::move(peer), settings) {
  agreed(std::move(agreement));
  receiver_ = std::make_unique<Receiver>(multipath::ReceiverSpec{},
                                         std::vector<std::unique_ptr<Connection>>(routes_.size()),
                                         multipath::Dial{});
}

Result RecvComm::irecv(std::span<std::byte> data, std::uint32_t tag, bool ours, Request** request) {
  *request = nullptr;
  const std::lock_guard lock(mutex_);
  if (failure() != kSuccess) return failure();
  Request* const slot = take();
  if (slot == nullptr) return kSuccess;
  order({data, tag, ours, slot});
  *request = slot;
  return kSuccess;
}

void RecvComm::join(std::size_t path, Socket socket) {
  if (path >= routes_.size()) return;
  watch_over(socket, settings_.timeout);
  auto connection = tcp_connection(std::move(socket), Waiting::kBlock);
  if (!routes_[path].local.rdma()) return offer(path, std::move(connection));
  // Queue pairs take a while, and others stand at the door.
  start_thread("cwai-net-join",
               [self = std::static_pointer_cast<RecvComm>(shared_from_this()), path,
                control = std::make_shared<std::unique_ptr<Connection>>(std::move(connection))] {
                 self->join_with_nic(path, std::move(*control));
               });
}

void RecvComm::join_with_nic(std::size_t path, std::unique_ptr<Connection> control) noexcept {
  const Route& route = routes_[path];
  try {
    offer(path, over_nic(std::move(control), route.local, settings_, dma_bufs_,
                         Watch(kNicPatience, &given_up_)));
  } catch (const Error& error) {
    if (error.fault() != Fault::kStopped)
      inform("path " + route.local.name + " < " + route.remote.name + ": " + text_of(error));
  } catch (const std::exception& error) {
    warn("path " + route.local.name + " < " + route.remote.name + ": " + error.what());
  }
}

void RecvComm::offer(std::size_t path, std::unique_ptr<Connection> connection) {
  const std::lock_guard lock(mutex_);
  if (receiver_ == nullptr) return;
  receiver_->offer(path, std::move(connection));
  connected_ = true;
}

void RecvComm::work() {
  // Taken down under the lock: until then join() may offer.
  struct End {
    RecvComm& comm;
    ~End() {
      std::unique_ptr<Receiver> gone;
      const std::lock_guard lock(comm.mutex_);
      gone.swap(comm.receiver_);
    }
  } const end{*this};
  serve(*receiver_);
}

}  // namespace cwai::nccl_net

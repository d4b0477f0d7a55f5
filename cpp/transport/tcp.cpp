#include "transport/tcp.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"
#include "transport/ring.hpp"

namespace cwai {
namespace {

// ------------------------------------------------------------------------------------ greeting

// All numbers little-endian. Hello: magic 8, version 2, lane 2, lanes 2, zero 2, token 32, crc 4.
// Answer: magic 8, version 2, verdict 2, crc 4.
constexpr std::array<char, 8> kMagic = {'C', 'W', 'A', 'I', 'L', 'A', 'N', 'E'};
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHelloSize = 52;
constexpr std::size_t kAnswerSize = 16;
constexpr Nanos kGreetingTimeout = 2 * kSecond;
constexpr std::size_t kMaxGuests = 128;

enum class Verdict : std::uint16_t { kWelcome, kMagic, kVersion, kToken, kLane };

const char* verdict_name(std::uint16_t verdict) {
  constexpr std::array<const char*, 5> kNames = {"welcome", "magic", "version", "token", "lane"};
  return verdict < kNames.size() ? kNames[verdict] : "unknown";
}

using Hello = std::array<std::byte, kHelloSize>;
using Answer = std::array<std::byte, kAnswerSize>;

Hello make_hello(const Token& token, int lane, int lanes) {
  Hello hello{};
  std::byte* at = hello.data();
  std::memcpy(at, kMagic.data(), kMagic.size());
  at += kMagic.size();
  put(at, kVersion);
  put(at, static_cast<std::uint16_t>(lane));
  put(at, static_cast<std::uint16_t>(lanes));
  put(at, std::uint16_t{0});
  std::memcpy(at, token.data(), token.size());
  at += token.size();
  put(at, crc32c(hello.data(), kHelloSize - 4));
  return hello;
}

// The lane that a hello asks for, or -1 with the reason in ``verdict``.
int read_hello(const Hello& hello, const Token& token, int lanes, Verdict& verdict) {
  const std::byte* at = hello.data();
  verdict = Verdict::kMagic;
  if (std::memcmp(at, kMagic.data(), kMagic.size()) != 0) return -1;
  at += kMagic.size();
  const std::byte* crc_at = hello.data() + kHelloSize - 4;
  if (take<std::uint32_t>(crc_at) != crc32c(hello.data(), kHelloSize - 4)) return -1;
  verdict = Verdict::kVersion;
  if (take<std::uint16_t>(at) != kVersion) return -1;
  const int lane = take<std::uint16_t>(at);
  const int theirs = take<std::uint16_t>(at);
  at += 2;
  verdict = Verdict::kToken;
  unsigned difference =
      0;  // all bytes are looked at, so that the time taken tells nothing about them
  for (std::size_t i = 0; i < token.size(); ++i)
    difference |= std::to_integer<unsigned>(at[i] ^ token[i]);
  if (difference != 0) return -1;
  verdict = Verdict::kLane;
  if (theirs != lanes || lane >= lanes) return -1;
  verdict = Verdict::kWelcome;
  return lane;
}

Answer make_answer(Verdict verdict) {
  Answer answer{};
  std::byte* at = answer.data();
  std::memcpy(at, kMagic.data(), kMagic.size());
  at += kMagic.size();
  put(at, kVersion);
  put(at, static_cast<std::uint16_t>(verdict));
  put(at, crc32c(answer.data(), kAnswerSize - 4));
  return answer;
}

// ------------------------------------------------------------------------------------- sockets

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Numeric addresses only: a name could hang in a resolver, and it belongs to Python.
Address numeric(const std::string& text, int port) {
  if (port < 0 || port > 65535) throw Error(Fault::kInvalid, "port " + std::to_string(port));
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(text.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0) throw Error(Fault::kAddress, text, 0, gai_strerror(failed));
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  freeaddrinfo(found);
  return address;
}

std::string show(const sockaddr* address, socklen_t length, bool with_port) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(address, length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "?";
  if (!with_port) return host;
  std::string text = host;
  if (address->sa_family == AF_INET6) text.insert(0, 1, '[').push_back(']');
  return text.append(1, ':').append(port);
}

using NameCall = int (*)(int, sockaddr*, socklen_t*);

std::string show(NameCall call, int fd, bool with_port) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  return call(fd, address, &length) == 0 ? show(address, length, with_port) : "?";
}

Socket make_socket(int family, int flags) {
  Socket socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!socket) throw Error(Fault::kListen, "socket", errno);
  return socket;
}

void set_option(const Socket& socket, int level, int name, int value) {
  setsockopt(socket.fd(), level, name, &value, sizeof value);
}

int milliseconds_until(Nanos until) {
  const Nanos left = std::clamp<Nanos>(until - now(), 0, kSlice);
  return static_cast<int>((left + 999'999) / 1'000'000);
}

// Waits for ``events`` on one socket, until the deadline.
void await(const Socket& socket, short events, const Watch& watch) {
  for (;;) {
    watch.check();
    pollfd entry{.fd = socket.fd(), .events = events, .revents = 0};
    if (::poll(&entry, 1, milliseconds_until(watch.slice_end())) > 0) return;
  }
}

// From here on the socket blocks, but never longer than a slice.
void make_lane(const Socket& socket) {
  fcntl(socket.fd(), F_SETFL, fcntl(socket.fd(), F_GETFL) & ~O_NONBLOCK);
  const timeval slice{.tv_sec = 0, .tv_usec = kSlice / 1000};
  setsockopt(socket.fd(), SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof slice);
  setsockopt(socket.fd(), SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof slice);
}

void send_all(const Socket& socket, std::span<const std::byte> data, const std::string& peer,
              const Watch& watch) {
  while (!data.empty()) {
    const ssize_t n = ::send(socket.fd(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      data = data.subspan(static_cast<std::size_t>(n));
    } else if (errno == EAGAIN) {
      await(socket, POLLOUT, watch);
    } else if (errno != EINTR) {
      throw Error(Fault::kConnect, peer, errno);
    }
  }
}

void receive_all(const Socket& socket, std::span<std::byte> data, const std::string& peer,
                 const Watch& watch) {
  while (!data.empty()) {
    const ssize_t n = ::recv(socket.fd(), data.data(), data.size(), MSG_DONTWAIT);
    if (n > 0) {
      data = data.subspan(static_cast<std::size_t>(n));
    } else if (n == 0) {
      throw Error(Fault::kConnect, peer, ECONNRESET);
    } else if (errno == EAGAIN) {
      await(socket, POLLIN, watch);
    } else if (errno != EINTR) {
      throw Error(Fault::kConnect, peer, errno);
    }
  }
}

Socket dial(const Address& remote, const std::string& peer, const std::string& source,
            const Watch& watch) {
  Socket socket = make_socket(remote.storage.ss_family, SOCK_NONBLOCK);
  if (!source.empty()) {
    const Address local = numeric(source, 0);
    if (::bind(socket.fd(), local.get(), local.length) != 0)
      throw Error(Fault::kAddress, source, errno);
  }
  if (::connect(socket.fd(), remote.get(), remote.length) != 0) {
    if (errno != EINPROGRESS) throw Error(Fault::kConnect, peer, errno);
    await(socket, POLLOUT, watch);
    int failed = 0;
    socklen_t length = sizeof failed;
    getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &failed, &length);
    if (failed != 0) throw Error(Fault::kConnect, peer, failed);
  }
  return socket;
}

// ---------------------------------------------------------------------------------- connection

class TcpConnection final : public Connection {
 public:
  TcpConnection(std::vector<Socket> sockets, Waiting waiting) : waiting_(waiting) {
    lanes_.reserve(sockets.size());
    for (Socket& socket : sockets) {
      make_lane(socket);
      lanes_.emplace_back(std::move(socket));
    }
    polls_.resize(lanes_.size());
    local_ = show(getsockname, lanes_.front().socket.fd(), true);
    remote_ = show(getpeername, lanes_.front().socket.fd(), true);
  }

  void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) override {
    // The one cast: a send only ever reads through this pointer.
    post(at(lane).sends, const_cast<std::byte*>(data.data()), data.size(), tag);
  }

  void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) override {
    post(at(lane).receives, data.data(), data.size(), tag);
  }

  std::size_t poll(std::span<Completion> out) override {
    std::size_t n = 0;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      Lane& lane = lanes_[i];
      if (!lane.sends.empty() && n < out.size())
        n += advance<Direction::kSend>(i, MSG_DONTWAIT, out[n]);
      if (!lane.receives.empty() && n < out.size())
        n += advance<Direction::kReceive>(i, MSG_DONTWAIT, out[n]);
    }
    return n;
  }

  std::size_t wait(std::span<Completion> out, Nanos until) override {
    return waiting_ == Waiting::kSpin ? spin(out, until)
           : lanes_.size() == 1       ? block_on_one_lane(out, until)
                                      : block(out, until);
  }

  Nanos arm(std::vector<pollfd>& into) override {
    for (const Lane& lane : lanes_) into.push_back(readiness(lane));
    return kNever;
  }
  void disarm() override {}

  bool redirect(int lane, Direction direction, std::uint64_t tag,
                std::span<std::byte> instead) override {
    Lane& l = at(lane);
    Queue& queue = direction == Direction::kSend ? l.sends : l.receives;
    for (std::size_t i = 0; i < queue.size(); ++i) {
      Operation& operation = queue[i];
      if (operation.tag != tag) continue;
      if (operation.size != instead.size()) throw Error(Fault::kInvalid, "redirect");
      std::memcpy(instead.data(), operation.data, operation.size);
      operation.data = instead.data();
      return true;
    }
    return false;
  }

  void fence() override {
    // The kernel keeps copies of what was sent, so dropping the operations is all the revoking
    // there is.
    for (Lane& lane : lanes_) {
      ::shutdown(lane.socket.fd(), SHUT_RDWR);
      lane.error = ECANCELED;
    }
    fenced_ = true;
  }

  void prepare(Goal goal) override {
    goal_ = goal;
    for (const Lane& lane : lanes_)
      set_option(lane.socket, IPPROTO_TCP, TCP_NODELAY, goal == Goal::kLatency ? 1 : 0);
  }

  std::size_t useful_depth() const noexcept override {
    return 1;
  }  // the socket buffer is the window
  int lanes() const noexcept override { return static_cast<int>(lanes_.size()); }
  const char* transport() const noexcept override { return "tcp"; }
  std::string local() const override { return local_; }
  std::string remote() const override { return remote_; }

 private:
  struct Operation {
    std::byte* data;
    std::size_t size;
    std::size_t done;
    std::uint64_t tag;
  };
  using Queue = Ring<Operation, kDepth>;

  struct Lane {
    explicit Lane(Socket s) : socket(std::move(s)) {}
    Socket socket;
    Queue sends;
    Queue receives;
    int error = 0;
    bool send_full = false;        // the last send left something over
    bool receive_drained = false;  // the last receive found nothing
  };

  static pollfd readiness(const Lane& lane) {
    short events = 0;
    if (!lane.sends.empty()) events |= POLLOUT;
    if (!lane.receives.empty()) events |= POLLIN;
    return {.fd = lane.socket.fd(), .events = events, .revents = 0};
  }

  Lane& at(int lane) {
    if (lane < 0 || lane >= lanes()) throw Error(Fault::kInvalid, "lane " + std::to_string(lane));
    return lanes_[static_cast<std::size_t>(lane)];
  }

  void post(Queue& queue, std::byte* data, std::size_t size, std::uint64_t tag) {
    if (queue.full() || fenced_) throw Error(Fault::kInvalid, "post");
    queue.push({.data = data, .size = size, .done = 0, .tag = tag});
  }

  // One system call for the first operation of a queue. Returns 1 when that completed it.
  template <Direction kDirection>
  std::size_t advance(std::size_t index, int flags, Completion& out) {
    constexpr bool kSends = kDirection == Direction::kSend;
    Lane& lane = lanes_[index];
    Queue& queue = kSends ? lane.sends : lane.receives;
    bool& stalled = kSends ? lane.send_full : lane.receive_drained;
    Operation& operation = queue.front();
    if (lane.error == 0) {
      const std::size_t left = operation.size - operation.done;
      std::byte* data = operation.data + operation.done;
      const int fd = lane.socket.fd();
      const ssize_t n =
          kSends ? ::send(fd, data, left, flags | MSG_NOSIGNAL) : ::recv(fd, data, left, flags);
      if (n > 0) {
        operation.done += static_cast<std::size_t>(n);
        // A short send means a full buffer. A short receive may mean anything: more has often come
        // meanwhile.
        stalled = kSends && operation.done < operation.size;
        if (operation.done < operation.size) return 0;
      } else if (n == 0 && left > 0) {
        lane.error = ECONNRESET;
      } else if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
          stalled = true;
          return 0;
        }
        lane.error = errno == EPIPE ? ECONNRESET : errno;
      }
    }
    out = {.tag = operation.tag,
           .bytes = operation.done,
           .time = now(),
           .status = operation.done == operation.size ? 0 : lane.error,
           .lane = static_cast<int>(index),
           .direction = kDirection};
    queue.pop();
    return 1;
  }

  std::size_t spin(std::span<Completion> out, Nanos until) {
    // The clock is read now and then only: a look at it costs as much as a tenth of a system call.
    constexpr int kTurns = 256;
    do {
      for (int turn = 0; turn < kTurns; ++turn)
        if (const std::size_t n = poll(out); n > 0) return n;
    } while (now() < until);
    return 0;
  }

  // A single lane with one direction pending needs no poll(2): the system call itself waits. A
  // receiver of bulk data asks poll(2) all the same: until it says that nothing is left, more has
  // come each time.
  std::size_t block_on_one_lane(std::span<Completion> out, Nanos until) {
    Lane& lane = lanes_.front();
    if (lane.sends.empty() && lane.receives.empty()) return 0;
    if (lane.receives.empty()) return advance_blocking<Direction::kSend>(out[0], until);
    if (lane.sends.empty()) {
      sends_had_their_turn_ = false;
      return goal_ == Goal::kLatency ? advance_blocking<Direction::kReceive>(out[0], until)
                                     : block(out, until);
    }
    // Both: a send that goes out at once is reported at once, since asking for an answer that
    // cannot be there yet would cost a system call in every round trip. Next time receives have
    // their turn.
    if (!sends_had_their_turn_ && !lane.send_full) {
      sends_had_their_turn_ = true;
      if (const std::size_t n = advance<Direction::kSend>(0, MSG_DONTWAIT, out[0]); n > 0) return n;
    }
    sends_had_their_turn_ = false;
    return block(out, until);
  }

  template <Direction kDirection>
  std::size_t advance_blocking(Completion& out, Nanos until) {
    for (;;) {
      if (const std::size_t n = advance<kDirection>(0, 0, out); n > 0) return n;
      if (now() >= until) return 0;
    }
  }

  // What stalled is left alone until poll(2) says that it is ready again; the rest is not asked
  // about, it is used. Now and then poll(2) is asked all the same, lest what never stalls starve
  // what did: another lane, or the other direction of the same one.
  std::size_t block(std::span<Completion> out, Nanos until) {
    constexpr int kPassesUnasked = 16;
    for (;;) {
      const bool in_turn = passes_unasked_ >= kPassesUnasked && any_stalled();
      if (!in_turn) {
        ++passes_unasked_;
        if (const std::size_t n = advance_ready(out); n > 0) return n;
        if (any_ready()) continue;
      }
      passes_unasked_ = 0;
      bool pending = false;
      for (std::size_t i = 0; i < lanes_.size(); ++i) {
        polls_[i] = readiness(lanes_[i]);
        pending = pending || polls_[i].events != 0;
      }
      if (!pending || now() >= until) return 0;
      if (::poll(polls_.data(), polls_.size(), in_turn ? 0 : milliseconds_until(until)) <= 0)
        continue;
      for (std::size_t i = 0; i < lanes_.size(); ++i) {
        constexpr short kBroken = POLLERR | POLLHUP;
        if ((polls_[i].revents & (POLLOUT | kBroken)) != 0) lanes_[i].send_full = false;
        if ((polls_[i].revents & (POLLIN | kBroken)) != 0) lanes_[i].receive_drained = false;
      }
    }
  }

  bool any_stalled() noexcept {
    return std::any_of(lanes_.begin(), lanes_.end(), [](Lane& lane) {
      return (!lane.sends.empty() && lane.send_full) ||
             (!lane.receives.empty() && lane.receive_drained);
    });
  }

  bool any_ready() noexcept {
    return std::any_of(lanes_.begin(), lanes_.end(), [](Lane& lane) {
      return (!lane.sends.empty() && !lane.send_full) ||
             (!lane.receives.empty() && !lane.receive_drained);
    });
  }

  std::size_t advance_ready(std::span<Completion> out) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      Lane& lane = lanes_[i];
      if (n < out.size() && !lane.sends.empty() && !lane.send_full)
        n += advance<Direction::kSend>(i, MSG_DONTWAIT, out[n]);
      if (n < out.size() && !lane.receives.empty() && !lane.receive_drained)
        n += advance<Direction::kReceive>(i, MSG_DONTWAIT, out[n]);
    }
    return n;
  }

  Waiting waiting_;
  Goal goal_ = Goal::kBandwidth;
  bool sends_had_their_turn_ = false;
  int passes_unasked_ = 0;
  bool fenced_ = false;
  std::vector<Lane> lanes_;
  std::vector<pollfd> polls_;
  std::string local_;
  std::string remote_;
};

void check_lanes(int lanes) {
  if (lanes < 1 || lanes > kMaxLanes)
    throw Error(Fault::kInvalid, "lanes " + std::to_string(lanes));
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

// --------------------------------------------------------------------------- other greetings

Socket tcp_listen(const std::string& address) {
  const Address local = numeric(address, 0);
  Socket socket = make_socket(local.storage.ss_family, SOCK_NONBLOCK);
  if (::bind(socket.fd(), local.get(), local.length) != 0)
    throw Error(errno == EADDRNOTAVAIL ? Fault::kAddress : Fault::kListen, address, errno);
  if (::listen(socket.fd(), SOMAXCONN) != 0) throw Error(Fault::kListen, address, errno);
  return socket;
}

int tcp_port(const Socket& socket) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
    throw Error(Fault::kListen, "port", errno);
  return ntohs(bound.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
}

Socket tcp_dial(const std::string& address, int port, const std::string& source,
                const Watch& watch) {
  const Address remote = numeric(address, port);
  return dial(remote, show(remote.get(), remote.length, true), source, watch);
}

void tcp_send(const Socket& socket, std::span<const std::byte> data, const std::string& peer,
              const Watch& watch) {
  send_all(socket, data, peer, watch);
}

void tcp_receive(const Socket& socket, std::span<std::byte> data, const std::string& peer,
                 const Watch& watch) {
  receive_all(socket, data, peer, watch);
}

std::unique_ptr<Connection> tcp_connection(Socket socket, Waiting waiting) {
  std::vector<Socket> sockets;
  sockets.push_back(std::move(socket));
  return std::make_unique<TcpConnection>(std::move(sockets), waiting);
}

// ------------------------------------------------------------------------------------ listener

struct TcpListener::Guest {
  Socket socket;
  Nanos deadline;
  Hello hello{};
  std::size_t got = 0;
};

TcpListener::TcpListener(const std::string& address, int port, int attempts) : address_(address) {
  int refused = EADDRINUSE;
  for (int i = 0; i < std::max(attempts, 1) && port + i <= 65535; ++i) {
    const Address local = numeric(address, port + i);
    Socket socket = make_socket(local.storage.ss_family, SOCK_NONBLOCK);
    set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    if (::bind(socket.fd(), local.get(), local.length) == 0 &&
        ::listen(socket.fd(), kMaxLanes) == 0) {
      port_ = tcp_port(socket);
      socket_ = std::move(socket);
      return;
    }
    refused = errno;
    // Ports below 1024 may be refused one by one; an address that is not ours is refused for good.
    if (refused == EADDRNOTAVAIL) throw Error(Fault::kAddress, address, refused);
    if (refused != EADDRINUSE && refused != EACCES) break;
  }
  const std::string subject = address + ":" + std::to_string(port);
  throw Error(refused == EADDRINUSE ? Fault::kPortsTaken : Fault::kListen, subject, refused);
}

TcpListener::~TcpListener() = default;

void TcpListener::note(const Socket& socket, const char* why) {
  if (strangers_.size() < kStrangersKept)
    strangers_.push_back({show(getpeername, socket.fd(), false), why});
}

std::unique_ptr<Connection> TcpListener::accept(const Token& token, int lanes, Waiting waiting,
                                                const Watch& watch) {
  check_lanes(lanes);
  std::vector<Socket> arrived(static_cast<std::size_t>(lanes));
  std::size_t missing = arrived.size();
  std::vector<pollfd> polls;

  // Reads what has come of a hello. True when the guest is done with: seated, or shown out.
  const auto settle = [&](Guest& guest) {
    const ssize_t n = ::recv(guest.socket.fd(), guest.hello.data() + guest.got,
                             kHelloSize - guest.got, MSG_DONTWAIT);
    if (n < 0) return errno != EAGAIN && errno != EINTR;
    if (n == 0) {
      note(guest.socket, "closed");
      return true;
    }
    guest.got += static_cast<std::size_t>(n);
    if (guest.got < kHelloSize) return false;
    Verdict verdict{};
    const int lane = read_hello(guest.hello, token, lanes, verdict);
    if (lane >= 0 && !arrived[static_cast<std::size_t>(lane)]) {
      arrived[static_cast<std::size_t>(lane)] = std::move(guest.socket);
      --missing;
      return true;
    }
    if (lane >= 0) verdict = Verdict::kLane;
    note(guest.socket, verdict_name(static_cast<std::uint16_t>(verdict)));
    const Answer answer = make_answer(verdict);
    // One try: a stranger who does not read his answer is not waited for.
    (void)!::send(guest.socket.fd(), answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return true;
  };

  while (missing > 0) {
    watch.check();
    polls.assign(1, {.fd = socket_.fd(), .events = POLLIN, .revents = 0});
    for (const Guest& guest : guests_)
      polls.push_back({.fd = guest.socket.fd(), .events = POLLIN, .revents = 0});
    ::poll(polls.data(), polls.size(), milliseconds_until(watch.slice_end()));

    std::vector<Guest> staying;
    for (std::size_t i = 0; i < guests_.size(); ++i) {
      Guest& guest = guests_[i];
      if (missing > 0 && polls[i + 1].revents != 0 && settle(guest)) continue;
      if (missing == 0 || now() < guest.deadline) {
        staying.push_back(std::move(guest));
      } else {
        note(guest.socket, "silent");
      }
    }
    guests_ = std::move(staying);

    if ((polls[0].revents & POLLIN) != 0) {
      Socket socket(::accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      if (socket && guests_.size() == kMaxGuests) {
        note(guests_.front().socket, "silent");
        guests_.erase(guests_.begin());
      }
      if (socket)
        guests_.push_back({.socket = std::move(socket), .deadline = now() + kGreetingTimeout});
      else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        throw Error(Fault::kListen, address_ + ":" + std::to_string(port_), errno);
    }
  }
  const Answer welcome = make_answer(Verdict::kWelcome);
  for (const Socket& socket : arrived)
    send_all(socket, welcome, show(getpeername, socket.fd(), true), watch);
  return std::make_unique<TcpConnection>(std::move(arrived), waiting);
}

std::unique_ptr<Connection> tcp_connect(const std::string& address, int port, const Token& token,
                                        int lanes, Waiting waiting, const std::string& source,
                                        const Watch& watch) {
  check_lanes(lanes);
  const Address remote = numeric(address, port);
  const std::string peer = show(remote.get(), remote.length, true);
  std::vector<Socket> sockets;
  for (int lane = 0; lane < lanes; ++lane) {
    Socket socket = dial(remote, peer, source, watch);
    send_all(socket, make_hello(token, lane, lanes), peer, watch);
    sockets.push_back(std::move(socket));
  }
  // The listener answers when it has seen every lane.
  for (Socket& socket : sockets) {
    Answer answer{};
    receive_all(socket, answer, peer, watch);
    const std::byte* at = answer.data() + kMagic.size();
    const std::byte* crc_at = answer.data() + kAnswerSize - 4;
    if (std::memcmp(answer.data(), kMagic.data(), kMagic.size()) != 0 ||
        take<std::uint32_t>(crc_at) != crc32c(answer.data(), kAnswerSize - 4))
      throw Error(Fault::kRejected, peer, 0, "magic");
    take<std::uint16_t>(at);  // its version: what it makes of ours stands in the verdict
    const auto verdict = take<std::uint16_t>(at);
    if (verdict != static_cast<std::uint16_t>(Verdict::kWelcome))
      throw Error(Fault::kRejected, peer, 0, verdict_name(verdict));
  }
  return std::make_unique<TcpConnection>(std::move(sockets), waiting);
}

}  // namespace cwai

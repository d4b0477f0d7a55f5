// TCP: a lane is a socket.
//
// The ends greet each other on every lane with a header of fixed size that carries a magic number,
// a version and the token of the run, under a CRC. Whoever connects without it is dropped and
// noted. The token keeps runs apart; it travels in the clear and is no protection against somebody
// who can read the network.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

using Token = std::array<std::byte, 32>;

/// A file descriptor with an owner.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();

  int fd() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Somebody who connected and did not belong here. ``why``: silent, closed, magic, version, token,
/// lane.
struct Stranger {
  std::string address;
  std::string why;
};

class TcpListener {
 public:
  /// Listens on the numeric ``address``. When ``port`` is taken the next ones are tried,
  /// ``attempts`` in all; port 0 lets the system choose. Throws Error: kAddress, kPortsTaken,
  /// kListen.
  TcpListener(const std::string& address, int port, int attempts);
  ~TcpListener();
  TcpListener(const TcpListener&) = delete;
  TcpListener& operator=(const TcpListener&) = delete;

  int port() const noexcept { return port_; }
  const std::string& address() const noexcept { return address_; }

  /// Waits for a peer that brings ``token`` and all ``lanes``; whoever else came meanwhile is for
  /// the next call. Throws Error: kDeadline, kStopped, kListen.
  std::unique_ptr<Connection> accept(const Token& token, int lanes, Waiting waiting,
                                     const Watch& watch);

  /// Those dropped since the listener was made; at most kStrangersKept are kept.
  const std::vector<Stranger>& strangers() const noexcept { return strangers_; }
  static constexpr std::size_t kStrangersKept = 16;

 private:
  struct Guest;
  void note(const Socket& socket, const char* why);

  std::string address_;
  int port_ = 0;
  Socket socket_;
  std::vector<Guest> guests_;  // that have not said all of their hello, or came together
  std::vector<Stranger> strangers_;
};

/// Connects ``lanes`` sockets to the numeric ``address``, from ``source`` when it is not empty.
/// Throws Error: kAddress, kConnect (errno), kRejected (with the listener's reason), kDeadline,
/// kStopped.
std::unique_ptr<Connection> tcp_connect(const std::string& address, int port, const Token& token,
                                        int lanes, Waiting waiting, const std::string& source,
                                        const Watch& watch);

constexpr int kMaxLanes = 64;

// For those who greet one another in a way of their own.

/// A socket that listens on the numeric ``address``, at a port that the system chooses; it does not
/// block. Throws Error: kAddress, kListen.
Socket tcp_listen(const std::string& address);
int tcp_port(const Socket& socket);

/// A connected socket that does not block; ``source`` may be empty. Throws Error: kAddress,
/// kConnect (errno), kDeadline, kStopped.
Socket tcp_dial(const std::string& address, int port, const std::string& source,
                const Watch& watch);

/// All of ``data``, on a socket that does not block; ``peer`` names it in errors. Throws Error:
/// kConnect (errno), kDeadline, kStopped.
void tcp_send(const Socket& socket, std::span<const std::byte> data, const std::string& peer,
              const Watch& watch);
void tcp_receive(const Socket& socket, std::span<std::byte> data, const std::string& peer,
                 const Watch& watch);

/// Of one lane, over a socket on which all was said.
std::unique_ptr<Connection> tcp_connection(Socket socket, Waiting waiting);

}  // namespace cwai

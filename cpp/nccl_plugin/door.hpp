// Where the sending ends of other processes come in: a listener on each rail, one for all comms of
// this process.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "nccl_plugin/comm.hpp"
#include "nccl_plugin/greeting.hpp"

namespace cwai::nccl_net {

/// What listen() made: comms that came for its token.
struct Listening {
  Token token{};
  std::deque<std::shared_ptr<RecvComm>> arrived;
};

class Door {
 public:
  /// Listens on each of ``rails`` and notes the port there; a rail on which that fails is taken
  /// out, with a line in the log. Throws Error when none is left. ``rails`` and ``settings`` must
  /// stay: a door is never closed again.
  Door(std::vector<Rail>& rails, const Settings& settings);
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  std::shared_ptr<Listening> listen();
  /// The next that came and has a path; null while there is none.
  std::shared_ptr<RecvComm> next(Listening& listening);
  void close(const Listening& listening);

 private:
  struct Guest;

  void watch() noexcept;
  Greeting answer(const Greeting& greeting, std::shared_ptr<RecvComm>& joins);
  void settle(Guest& guest);

  const std::vector<Rail>& rails_;
  const Settings& settings_;
  std::vector<Socket> sockets_;
  std::mutex mutex_;
  std::map<Token, std::shared_ptr<Listening>> listening_;
  struct Joining {
    Token token;
    std::weak_ptr<RecvComm> comm;
  };
  std::map<Session, Joining> sessions_;
};

}  // namespace cwai::nccl_net

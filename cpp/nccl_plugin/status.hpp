// What goes on, for somebody outside: whoever connects to the abstract unix socket
// ``cwai-net-PID`` and is the same user, or root, reads one JSON document. It is gone with the
// process.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nccl_plugin/comm.hpp"

namespace cwai::nccl_net {

/// Comms that are told of, of more the number; and paths in all of them.
constexpr std::size_t kMostComms = 256;
constexpr std::size_t kMostPathsTold = 2048;

class StatusServer {
 public:
  /// ``rails`` and ``settings`` must stay: it answers until the process ends. Where it cannot
  /// listen it says so in the log, and nobody can ask.
  StatusServer(const std::vector<Rail>& rails, const Settings& settings);

  void add(const std::shared_ptr<Comm>& comm);
  /// The document.
  std::string document();

 private:
  void serve(int fd) noexcept;

  const std::vector<Rail>& rails_;
  const Settings& settings_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Comm>> comms_;
};

}  // namespace cwai::nccl_net

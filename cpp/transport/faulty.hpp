// A connection with a fault on it, planted and taken away at any time: for rehearsals and tests.
#pragma once

#include <atomic>
#include <memory>

#include "transport/transport.hpp"

namespace cwai {

/// What is wrong with a path. Both of its ends share one, and any thread may change it.
struct Plant {
  std::atomic<double> rate{0};     ///< Bytes per second that each end can send; 0: any.
  std::atomic<bool> cut{false};    ///< Nothing leaves, and nobody is told.
  std::atomic<bool> reset{false};  ///< Its operations end with ECONNRESET.
  std::atomic<int> corrupt{0};     ///< In so many of the next messages a bit is flipped.
  std::size_t spared = 64;         ///< Messages of so many bytes never are.
};

/// ``inner`` with ``plant`` on what this end sends.
std::unique_ptr<Connection> planted(std::unique_ptr<Connection> inner,
                                    std::shared_ptr<Plant> plant);

}  // namespace cwai

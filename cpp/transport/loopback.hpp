// Memory between two threads of one process: the receiver copies straight from the buffer that the
// sender posted, as an RDMA read does. No system call, unless somebody has to be woken.
#pragma once

#include <memory>
#include <utility>

#include "transport/transport.hpp"

namespace cwai {

/// Both ends. Each is driven by a thread of its own; either may go first.
std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> memory_pair(int lanes,
                                                                                Waiting waiting);

}  // namespace cwai

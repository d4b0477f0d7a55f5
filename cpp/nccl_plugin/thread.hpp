// Threads of the plugin within a process that is somebody else's.
#pragma once

#include <functional>

namespace cwai::nccl_net {

/// Runs on its own. It handles none of the job's signals. ``name``: up to 15 characters. Throws
/// std::system_error when the system has no thread left.
void start_thread(const char* name, std::function<void()> body);

}  // namespace cwai::nccl_net

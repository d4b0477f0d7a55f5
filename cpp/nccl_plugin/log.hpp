// Lines in NCCL's own log, by the function that it gives to init().
#pragma once

#include <string>

#include "nccl_plugin/net_abi.hpp"

namespace cwai::nccl_net {

void log_with(Logger logger) noexcept;
void warn(const std::string& text);
/// Seen with NCCL_DEBUG=INFO.
void inform(const std::string& text);

}  // namespace cwai::nccl_net

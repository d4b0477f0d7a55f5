// What the environment says. NCCL reads its files (/etc/nccl.conf) into the environment before it
// loads a plugin, so that they count here too.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "support/clock.hpp"
#include "verbs/endpoint.hpp"

namespace cwai::nccl_net {

using Environment = std::map<std::string, std::string>;

/// Of this process.
Environment environment();

/// How paths go: RDMA where both ends have it and TCP else (kEither), or one of them and never the
/// other.
enum class Transport : std::uint8_t { kEither, kTcp, kRdma };

const char* transport_name(Transport transport) noexcept;

struct Settings {
  /// CWAI_NET_TRANSPORT: ``tcp`` or ``rdma``. NCCL_IB_DISABLE=1 makes it TCP.
  Transport transport = Transport::kEither;
  std::string hcas;  ///< NCCL_IB_HCA
  /// Of each RDMA path, but for its device: NCCL_IB_GID_INDEX, NCCL_IB_TC, NCCL_IB_SL,
  /// NCCL_IB_TIMEOUT, NCCL_IB_RETRY_CNT.
  verbs::PathSpec nic = {};
  /// NCCL_IB_QPS_PER_CONNECTION, 1 to 128: connections on each path.
  int connections = 1;
  /// CTCCL_IB_RETRY_DISABLE=1 makes it false: the first path that breaks ends it all.
  bool resend = true;
  /// CWAI_NET_TIMEOUT, in whole seconds: without any path for so long a request fails.
  /// NCCL_IB_TIMEOUT and NCCL_IB_RETRY_CNT come to about as much by default (20 and 7; env.rst of
  /// NVIDIA/nccl).
  Nanos timeout = 30 * kSecond;
  std::string interfaces;           ///< NCCL_SOCKET_IFNAME
  int family = 0;                   ///< NCCL_SOCKET_FAMILY: 4, 6, or 0 for both.
  std::vector<std::string> paths;   ///< CWAI_NET_PATHS: names or addresses, in the order of rails.
  std::vector<std::string> wrong;   ///< What was not taken as it stands, each in a line.
  std::vector<std::string> unused;  ///< Variables that mean nothing here.
  std::vector<std::string> rdma_only;  ///< Variables that mean nothing over TCP.
};

Settings read_settings(const Environment& environment);

}  // namespace cwai::nccl_net

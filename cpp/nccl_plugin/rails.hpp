// The interfaces of a node over which paths go, and which interface of the other node each is
// joined with. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "nccl_plugin/settings.hpp"
#include "support/interfaces.hpp"

namespace cwai::nccl_net {

struct Rail {
  std::string name;     ///< Of the interface.
  std::string address;  ///< Numeric.
  int prefix = 0;       ///< Bits of the network part.
  int port = 0;         ///< At which it listens.

  bool v6() const noexcept { return address.find(':') != std::string::npos; }
};

constexpr std::size_t kMostRails = 32;

/// CWAI_NET_PATHS in its order; else what NCCL_SOCKET_IFNAME names, as NCCL understands it: a list
/// of beginnings of names, ``=`` whole names, ``^`` all but these; else as NCCL looks for itself
/// (src/misc/socket.cc): ``ib*``, then all but docker, lo and virbr, then those. One address of
/// each, IPv4 before IPv6, none that is valid on its link alone. Throws Error(kAddress) when there
/// is none.
std::vector<Rail> choose_rails(const Settings& settings, const std::vector<InterfaceAddress>& here);

/// Which rail of ``left`` goes with which of ``right``: those of one network first, in their order,
/// then the others in theirs; where one side has more, each of them is still used. Both ends come
/// to the same. Empty when they have no family of addresses in common.
std::vector<std::pair<std::size_t, std::size_t>> pair_rails(const std::vector<Rail>& left,
                                                            const std::vector<Rail>& right);

}  // namespace cwai::nccl_net

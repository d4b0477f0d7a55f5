// The network interfaces of this machine, with an entry for each address.
#pragma once

#include <string>
#include <vector>

namespace cwai {

struct InterfaceAddress {
  std::string name;
  std::string
      address;  ///< Numeric; a link-local IPv6 address carries its scope (``fe80::1%eth0``).
  int prefix;   ///< Bits of the network part.
  bool v6;
  bool up;  ///< Up and with carrier.
  bool loopback;
};

/// Throws Error(kAddress) with errno when the system does not tell.
std::vector<InterfaceAddress> interface_addresses();

}  // namespace cwai

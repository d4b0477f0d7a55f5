#include "nccl_plugin/rails.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <sstream>

#include "support/error.hpp"

namespace cwai::nccl_net {
namespace {

using Bytes = std::array<std::uint8_t, 16>;

// Of an IPv4 address the first four.
Bytes bytes_of(const std::string& address, bool v6) {
  Bytes bytes{};
  inet_pton(v6 ? AF_INET6 : AF_INET, address.c_str(), bytes.data());
  return bytes;
}

bool same_network(const Rail& a, const Rail& b) {
  if (a.v6() != b.v6()) return false;
  const Bytes first = bytes_of(a.address, a.v6());
  const Bytes second = bytes_of(b.address, b.v6());
  int bits = std::min(a.prefix, b.prefix);
  for (std::size_t i = 0; i < first.size() && bits > 0; ++i, bits -= 8) {
    const auto mask = static_cast<std::uint8_t>(bits >= 8 ? 0xFF : 0xFF << (8 - bits));
    if (((first[i] ^ second[i]) & mask) != 0) return false;
  }
  return true;
}

bool of_link_only(const InterfaceAddress& one) {
  return one.address.find('%') != std::string::npos ||
         (one.v6 && one.address.rfind("fe80:", 0) == 0);
}

// One rail for each interface that matches.
std::vector<Rail> matching(const std::string& list, int family,
                           const std::vector<InterfaceAddress>& here) {
  std::vector<Rail> rails;
  for (const InterfaceAddress& one : here) {
    if (!one.up || of_link_only(one) || !lists(list, one.name)) continue;
    if (family != 0 && (family == 6) != one.v6) continue;
    const auto same = std::find_if(rails.begin(), rails.end(),
                                   [&](const Rail& rail) { return rail.name == one.name; });
    const Rail rail{.name = one.name, .address = one.address, .prefix = one.prefix};
    if (same == rails.end())
      rails.push_back(rail);
    else if (same->v6() && !one.v6)
      *same = rail;
  }
  return rails;
}

Rail named(const std::string& name, const Settings& settings,
           const std::vector<InterfaceAddress>& here) {
  const auto rails = matching("=" + name, settings.family, here);
  if (!rails.empty()) return rails.front();
  for (const InterfaceAddress& one : here)
    if (one.address == name) return {.name = one.name, .address = name, .prefix = one.prefix};
  // An address that no interface shows may be of this node all the same: all of 127.0.0.0/8 is.
  const bool v6 = name.find(':') != std::string::npos;
  Bytes bytes{};
  if (inet_pton(v6 ? AF_INET6 : AF_INET, name.c_str(), bytes.data()) != 1)
    throw Error(Fault::kAddress,
                "CWAI_NET_PATHS: " + name + " is no address, and no interface that is up");
  return {.name = name, .address = name, .prefix = v6 ? 128 : 32};
}

}  // namespace

bool lists(const std::string& list, const std::string& name, int port) {
  std::string rest = list;
  bool but = false;
  bool whole = false;
  if (!rest.empty() && rest.front() == '^') but = true, rest.erase(0, 1);
  if (!rest.empty() && rest.front() == '=') whole = true, rest.erase(0, 1);
  bool found = false;
  std::istringstream all(rest);
  for (std::string one; std::getline(all, one, ',');) {
    const auto colon = one.find(':');
    const bool here =
        colon == std::string::npos || port == 0 || std::atoi(one.c_str() + colon + 1) == port;
    one = one.substr(0, colon);
    if (one.empty() || !here) continue;
    found = found || (whole ? name == one : name.rfind(one, 0) == 0);
  }
  return found != but;
}

std::vector<Rail> choose_rails(const Settings& settings,
                               const std::vector<InterfaceAddress>& here) {
  std::vector<Rail> rails;
  for (const std::string& name : settings.paths) {
    const Rail rail = named(name, settings, here);
    for (const Rail& other : rails)
      if (other.address == rail.address)
        throw Error(Fault::kAddress, "CWAI_NET_PATHS: " + name + " is there twice");
    rails.push_back(rail);
  }
  if (rails.empty() && !settings.interfaces.empty()) {
    rails = matching(settings.interfaces, settings.family, here);
    if (rails.empty())
      throw Error(Fault::kAddress, "NCCL_SOCKET_IFNAME=" + settings.interfaces +
                                       ": no interface that is up matches");
  }
  for (const char* list : {"ib", "^docker,lo,virbr", "docker", "lo", "virbr"})
    if (rails.empty()) rails = matching(list, settings.family, here);
  if (rails.empty()) throw Error(Fault::kAddress, "no interface is up and has an address");
  if (rails.size() > kMostRails) rails.resize(kMostRails);
  return rails;
}

std::vector<Rail> choose_nics(const Settings& settings, const std::vector<NicPort>& ports,
                              const std::vector<InterfaceAddress>& here,
                              const std::vector<Rail>& rails) {
  std::vector<Rail> nics;
  for (const NicPort& port : ports) {
    if (!settings.hcas.empty() && !lists(settings.hcas, port.device, port.port)) continue;
    if (nics.size() == kMostRails) break;
    auto own = port.interface.empty() ? std::vector<Rail>{}
                                      : matching("=" + port.interface, settings.family, here);
    Rail nic = own.empty() ? rails[nics.size() % rails.size()] : own.front();
    nic.name = port.device + ":" + std::to_string(port.port);
    nic.link = port.link;
    nic.speed = port.speed;
    nic.device = port.device;
    nic.device_port = port.port;
    nic.dma_bufs = port.dma_bufs;
    nics.push_back(std::move(nic));
  }
  return nics;
}

std::vector<Rail> usable(const std::vector<Rail>& rails, Transport transport) {
  std::vector<Rail> found;
  std::copy_if(rails.begin(), rails.end(), std::back_inserter(found), [&](const Rail& rail) {
    return transport == Transport::kEither || rail.rdma() == (transport == Transport::kRdma);
  });
  return found;
}

std::vector<std::pair<std::size_t, std::size_t>> pair_rails(const std::vector<Rail>& left,
                                                            const std::vector<Rail>& right) {
  std::vector<std::pair<std::size_t, std::size_t>> pairs;
  std::vector<std::size_t> left_uses(left.size(), 0);
  std::vector<std::size_t> right_uses(right.size(), 0);
  const auto alike = [](const Rail& a, const Rail& b) {
    return a.v6() == b.v6() && a.link == b.link;
  };
  const auto join = [&](std::size_t i, std::size_t j) {
    pairs.emplace_back(i, j);
    ++left_uses[i];
    ++right_uses[j];
  };
  for (const bool near : {true, false})
    for (std::size_t i = 0; i < left.size(); ++i)
      for (std::size_t j = 0; j < right.size() && left_uses[i] == 0; ++j)
        if (right_uses[j] == 0 && alike(left[i], right[j]) &&
            (!near || same_network(left[i], right[j])))
          join(i, j);
  // Whoever is left over goes with the one of the other side that has least, of its own network if
  // there is one.
  const auto least = [&](const Rail& rail, const std::vector<Rail>& others,
                         const std::vector<std::size_t>& uses) {
    std::size_t best = others.size();
    for (std::size_t k = 0; k < others.size(); ++k) {
      if (!alike(others[k], rail)) continue;
      if (best == others.size()) {
        best = k;
        continue;
      }
      const bool nearer = same_network(rail, others[k]);
      const bool near = same_network(rail, others[best]);
      if (nearer != near ? nearer : uses[k] < uses[best]) best = k;
    }
    return best;
  };
  for (std::size_t i = 0; i < left.size(); ++i)
    if (left_uses[i] == 0)
      if (const std::size_t j = least(left[i], right, right_uses); j < right.size()) join(i, j);
  for (std::size_t j = 0; j < right.size(); ++j)
    if (right_uses[j] == 0)
      if (const std::size_t i = least(right[j], left, left_uses); i < left.size()) join(i, j);
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

}  // namespace cwai::nccl_net

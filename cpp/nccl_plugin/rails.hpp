// The interfaces of a node over which paths go, and which interface of the other node each is
// joined with. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nccl_plugin/settings.hpp"
#include "support/interfaces.hpp"

namespace cwai::nccl_net {

/// What goes over it: TCP, or RDMA of one kind or the other.
enum class Link : std::uint8_t { kTcp, kInfiniband, kRoce };

struct Rail {
  std::string name;     ///< Of the interface; over RDMA ``mlx5_0:1``, the device and its port.
  std::string address;  ///< Numeric. Over RDMA: where the ends meet before they have queue pairs.
  int prefix = 0;       ///< Bits of the network part.
  int port = 0;         ///< At which it listens.
  Link link = Link::kTcp;
  int speed = 0;            ///< Mb/s; 0: not known, or of the other end.
  std::string device = {};  ///< Of RDMA, of this end;
  int device_port = 0;      ///< and its port,
  bool dma_bufs = false;    ///< and whether it registers dma-bufs.

  bool rdma() const noexcept { return link != Link::kTcp; }
  bool v6() const noexcept { return address.find(':') != std::string::npos; }
};

constexpr std::size_t kMostRails = 32;  ///< Of TCP, and as many of RDMA.

/// Whether a list of NCCL (NCCL_SOCKET_IFNAME, NCCL_IB_HCA) names ``name``, with this ``port``
/// where it says one: beginnings of names, ``=`` whole names, ``^`` all but these.
bool lists(const std::string& list, const std::string& name, int port = 0);

/// CWAI_NET_PATHS in its order; else what NCCL_SOCKET_IFNAME names, as NCCL understands it: a list
/// of beginnings of names, ``=`` whole names, ``^`` all but these; else as NCCL looks for itself
/// (src/misc/socket.cc): ``ib*``, then all but docker, lo and virbr, then those. One address of
/// each, IPv4 before IPv6, none that is valid on its link alone. Throws Error(kAddress) when there
/// is none.
std::vector<Rail> choose_rails(const Settings& settings, const std::vector<InterfaceAddress>& here);

/// A port of an RDMA device that is up.
struct NicPort {
  std::string device;
  int port = 1;
  Link link = Link::kRoce;
  int speed = 0;               ///< Mb/s; 0: not known.
  std::string interface = {};  ///< The network interface of the same port, if there is one.
  bool dma_bufs = false;       ///< The device registers them.
};

/// A rail for each of ``ports`` that NCCL_IB_HCA does not leave out. Its ends meet by the address
/// of the interface of the same port; where that has none, by one of ``rails``, in turn, of which
/// there must be one.
std::vector<Rail> choose_nics(const Settings& settings, const std::vector<NicPort>& ports,
                              const std::vector<InterfaceAddress>& here,
                              const std::vector<Rail>& rails);

/// Those of ``rails`` that may carry a path.
std::vector<Rail> usable(const std::vector<Rail>& rails, Transport transport);

/// Which rail of ``left`` goes with which of ``right``: those of one network first, in their order,
/// then the others in theirs; where one side has more, each of them is still used. Both ends come
/// to the same. Only what has a link of one kind is joined, and addresses of one family. Empty when
/// they have none in common.
std::vector<std::pair<std::size_t, std::size_t>> pair_rails(const std::vector<Rail>& left,
                                                            const std::vector<Rail>& right);

}  // namespace cwai::nccl_net

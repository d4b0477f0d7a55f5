// One end of RDMA paths: a device that is open, its port and address, and how the queue pairs of
// two ends are joined.
//
// The ends meet over a TCP connection (transport/tcp.hpp), which the token of the run has opened:
// each tells the other where its queue pairs are, in a record of a known length, under a CRC.
#pragma once

#include <cerrno>
#include <span>
#include <string>

#include "support/error.hpp"
#include "support/stop.hpp"
#include "transport/transport.hpp"
#include "verbs/library.hpp"

namespace cwai::verbs {

struct PathSpec {
  std::string device;  ///< As in /sys/class/infiniband.
  int port = 1;
  int gid_index = -1;  ///< Negative: chosen as verbs/library.hpp says.
  int mtu = 0;         ///< Bytes of a packet at most; 0: as many as both ports carry.
  int service_level = 0;
  int traffic_class = 0;
  int timeout = 14;  ///< Of a packet's answer: 4.096 us · 2^timeout (IBTA vol. 1, 9.7.6.1.3).
  int retries = 7;
};

/// ``thing``, or Error(kDevice) with errno when the library has made none; ``what`` names it.
template <typename T>
T* made(T* thing, const std::string& what) {
  if (thing == nullptr) throw Error(Fault::kDevice, what, errno);
  return thing;
}

class Endpoint {
 public:
  /// Throws Error: kLibrary, kDevice (errno), kInvalid (mtu).
  explicit Endpoint(const PathSpec& spec);

  const Library& library() const noexcept { return library_; }
  const PathSpec& spec() const noexcept { return spec_; }
  Context& context() const noexcept { return *context_; }
  Pd* pd() const noexcept { return pd_.get(); }
  const DeviceAttr& device() const noexcept { return device_; }
  const PortChoice& port() const noexcept { return port_; }
  const std::string& name() const noexcept { return name_; }  ///< ``mlx5_0:1 gid 3``

  /// Whether the address by which the port is spoken to is still where it was.
  bool has_its_gid() const;

  /// ``access`` as in verbs/abi.hpp. Throws Error(kDevice, errno).
  MrPtr region(std::uint64_t address, std::size_t size, unsigned access) const;

  /// The same of a dma-buf, from ``offset`` on, that is spoken of as ``address``. Null where the
  /// library or the device has no such registration.
  MrPtr region_of(int dma_buf, std::uint64_t address, std::size_t size, unsigned access,
                  std::uint64_t offset = 0) const;

  /// A queue pair in INIT: it can be posted to for receiving. With ``operations`` (kWith… of
  /// verbs/abi.hpp) one in which those can be built, where the device has such; else a plain one
  /// (Library::qp_to_qp_ex tells them apart). Throws Error(kDevice, errno).
  QpPtr queue_pair(QpInitAttr& wanted, std::uint64_t operations = 0) const;

  /// Joins the n-th of ``mine`` with the n-th of the other end, which calls it as well; after it
  /// both may send. Throws Error: kDevice, kDisagreed, kGarbled, kPeerClosed, kTransfer, kDeadline,
  /// kStopped.
  void join(std::span<const QpPtr> mine, Connection& control, const Watch& watch);

  /// Puts one into ERR, in which all that it was posted is flushed. False: the device refuses.
  bool halt(Qp* queue_pair) const noexcept;

  /// Throws Error(kDevice, ENETDOWN) when the port is not active any more.
  void expect_active() const;

  /// Bytes of a packet, agreed on by join(); 0 before.
  int mtu() const noexcept { return mtu_; }

 private:
  struct Place;
  Qp* extended(QpInitAttr& wanted, std::uint64_t operations) const;
  void connect(Qp* mine, std::pair<std::uint32_t, std::uint32_t> theirs, const Place& place);
  void modify(Qp* queue_pair, QpAttr& attr, int mask, const char* state) const;

  const Library& library_ = Library::get();
  PathSpec spec_;
  ContextPtr context_;
  DeviceAttr device_{};
  PortChoice port_;
  PdPtr pd_;
  std::string name_;
  int largest_mtu_;  // as a code, of this end
  int mtu_ = 0;
};

}  // namespace cwai::verbs

// What RDMA is measured over: an end with queue pairs of its own for each run.
//
// A run makes its queue pairs and its memory, joins them with those of the other end, and lets go
// of them, in that order backwards: what is posted for one run never meets the next one's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/cuda.hpp"
#include "support/pattern.hpp"
#include "verbs/endpoint.hpp"

namespace cwai {

struct QueuePairsSpec {
  verbs::PathSpec path;
  int count = 1;         ///< Queue pairs that work together.
  int depth = 128;       ///< Messages in flight on each, at most.
  int post_list = 0;     ///< Messages that are handed to the NIC at a time; 0: as suits their size.
  int inline_size = -1;  ///< Bytes up to which a message goes along in its request; -1: latency
                         ///< alone, as many as the device takes.
  bool relaxed_ordering = false;  ///< Of the writes of the NIC into this end's memory.
  bool huge_pages = false;        ///< Memory of 2 MiB pages; fails where none are free.
  bool cold = false;              ///< Messages from memory larger than the last cache.
  std::string gpu;  ///< PCI address of the GPU whose memory is used; empty: the host's.
};

/// One end. Both ends make one from their end of a TCP connection, by the same values but for the
/// path.
class QueuePairs {
 public:
  static constexpr int kMost = 128;

  /// Throws Error: kInvalid, kLibrary, kDevice, kDisagreed, kGarbled, kPeerClosed, kTransfer,
  /// kDeadline, kStopped.
  QueuePairs(std::unique_ptr<Connection> control, const QueuePairsSpec& spec, const Watch& watch);

  const QueuePairsSpec& spec() const noexcept { return spec_; }
  verbs::Endpoint& endpoint() noexcept { return endpoint_; }
  const verbs::Endpoint& endpoint() const noexcept { return endpoint_; }
  Connection& control() noexcept { return *control_; }
  const std::string& remote() const noexcept { return remote_; }

 private:
  QueuePairsSpec spec_;
  std::unique_ptr<Connection> control_;
  verbs::Endpoint endpoint_;
  std::string remote_;
};

/// Messages of ``size`` bytes of ``count`` queue pairs, those that go out and those that come in;
/// the NIC may read and write all of it, and so may the other end.
class Memory {
 public:
  /// Throws Error: kDevice (errno, or the driver's word) when there is not so much of it, kLibrary,
  /// kInvalid.
  Memory(const QueuePairs& pairs, std::size_t count, std::size_t size);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Places for messages one after the other on each queue pair; both ends have as many.
  std::size_t slots() const noexcept { return slots_; }

  /// Where a message goes out from, or comes in, in memory that begins at ``base``: this end's
  /// (base()), or the other's.
  std::uint64_t outgoing(std::uint64_t base, std::size_t pair, std::size_t slot) const noexcept {
    return base + (pair * slots_ + slot) * stride_;
  }
  std::uint64_t incoming(std::uint64_t base, std::size_t pair, std::size_t slot) const noexcept {
    return outgoing(base + half_, pair, slot);
  }
  std::uint64_t base() const noexcept { return base_; }
  const verbs::Mr& region() const noexcept { return *region_; }

  bool on_gpu() const noexcept { return gpu_ != nullptr; }
  /// How the NIC reaches it: ``host``; of a GPU ``dma-buf``, or ``peermem`` where the driver has
  /// that of its own.
  const char* way() const noexcept { return way_; }

  /// The byte at an address of this end, on the host.
  static std::byte* host(std::uint64_t address) noexcept {
    return reinterpret_cast<std::byte*>(address);
  }
  void fill(std::uint64_t address, std::size_t size, std::uint64_t seed) const;
  Mismatch check(std::uint64_t address, std::size_t size, std::uint64_t seed) const;

 private:
  void take_host(const QueuePairs& pairs, unsigned access);
  void take_gpu(const QueuePairs& pairs, unsigned access);

  std::size_t stride_;
  std::size_t slots_;
  std::size_t half_;
  std::size_t size_ = 0;
  std::uint64_t base_ = 0;
  const char* way_ = "host";
  std::unique_ptr<GpuMemory> gpu_;
  verbs::MrPtr region_;
};

/// The queue pairs of one run, and the queues that they complete into.
class Joined {
 public:
  /// ``count`` of them, each with ``send_depth`` and ``receive_depth``. Not joined yet: receives
  /// can be posted.
  /// ``inline_size``: bytes, 0 for none, negative for as many as the device gives.
  Joined(QueuePairs& pairs, std::size_t count, std::size_t send_depth, std::size_t receive_depth,
         int inline_size);

  void join(const Watch& watch);

  std::size_t count() const noexcept { return all_.size(); }
  verbs::Qp* operator[](std::size_t i) const noexcept { return all_[i].get(); }
  std::size_t inline_size() const noexcept { return inline_size_; }

  /// Completions of what this end sent, and of what came to it: at most ``out.size()``. Throws
  /// Error(kTransfer) with the library's own words when one of them failed.
  std::size_t sent(std::span<verbs::Wc> out) const { return poll(send_queue_.get(), out); }
  std::size_t received(std::span<verbs::Wc> out) const { return poll(receive_queue_.get(), out); }

  /// How requests get to the NIC: ``ibv_wr``, built in the queue pairs, where the device has that;
  /// else ``ibv_post_send``.
  const char* posting() const noexcept;

  /// Hands a chain of requests of one kind to the NIC. Throws Error(kTransfer, errno).
  void post(std::size_t pair, verbs::SendWr* chain) const {
    verbs::SendWr* bad = nullptr;
    verbs::QpEx* const built = built_[pair];
    const int failed =
        built != nullptr ? build(*built, *chain) : post_send_(all_[pair].get(), chain, &bad);
    if (failed != 0) refuse(failed);
  }
  void post(std::size_t pair, verbs::RecvWr* chain) const {
    verbs::RecvWr* bad = nullptr;
    const int failed = post_recv_(all_[pair].get(), chain, &bad);
    if (failed != 0) refuse(failed);
  }

 private:
  std::size_t poll(verbs::Cq* queue, std::span<verbs::Wc> out) const;
  static int build(verbs::QpEx& queue_pair, const verbs::SendWr& chain);
  verbs::QpPtr make(verbs::QpInitAttr& wanted, int inline_size);
  [[noreturn]] void refuse(int failed) const;

  QueuePairs& pairs_;
  int (*poll_cq_)(verbs::Cq*, int, verbs::Wc*);
  int (*post_send_)(verbs::Qp*, verbs::SendWr*, verbs::SendWr**);
  int (*post_recv_)(verbs::Qp*, verbs::RecvWr*, verbs::RecvWr**);
  verbs::CqPtr send_queue_;
  verbs::CqPtr receive_queue_;
  std::vector<verbs::QpPtr> all_;
  std::vector<verbs::QpEx*> built_;  // null where requests cannot be built in one
  std::size_t inline_size_ = 0;
};

}  // namespace cwai

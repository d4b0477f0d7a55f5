// A collective library as the sweep sees it: members of a group, each with its buffers, that can
// do an operation together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/stop.hpp"

namespace cwai {

enum class Operation : std::uint8_t {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kReduce,
  kAllToAll,
  kAllToAllV,  ///< Blocks of one, two and three shares; data.hpp says which.
  kGather,
  kScatter,
  kSendRecv,  ///< A ring: to the next member, from the one before.
};
constexpr std::size_t kOperations = 10;

enum class Element : std::uint8_t {
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat16,
  kBfloat16,
  kFloat32,
  kFloat64,
  kFloat8E4M3,
  kFloat8E5M2,
};
constexpr std::size_t kElements = 14;

enum class Reduction : std::uint8_t {
  kSum,
  kProd,
  kMax,
  kMin,
  kAvg,
  kPreMulSum,  ///< Every member's data times two, then added.
};
constexpr std::size_t kReductions = 6;

/// Throw Error(kInvalid) for a name that is none: ``all_reduce``, ``float32``, ``sum`` …
Operation operation_of(std::string_view name);
Element element_of(std::string_view name);
Reduction reduction_of(std::string_view name);
/// String literals.
const char* operation_name(Operation operation) noexcept;
const char* element_name(Element element) noexcept;
const char* reduction_name(Reduction reduction) noexcept;

std::size_t element_size(Element element) noexcept;
/// Whether the operation computes, and with that looks at the reduction.
bool reduces(Operation operation) noexcept;
/// Whether it has a root: broadcast, reduce, gather, scatter.
bool has_root(Operation operation) noexcept;

/// Offsets and lengths of one member's blocks of alltoallv, in elements, by peer.
struct Uneven {
  std::vector<std::size_t> send_counts, send_offsets, receive_counts, receive_offsets;
};

/// One operation of the whole group. ``count`` elements per block: a block is the whole message,
/// but for all_gather, reduce_scatter, alltoall, gather and scatter the part of one member.
struct Call {
  Operation operation;
  Element element;
  Reduction reduction;
  int root;
  std::size_t count;
  bool in_place;
  /// What the members of this process send and where they receive: on the card, or in the host's
  /// memory. In place both lie in one buffer, as nccl-tests lays them: the one that is a part of
  /// the other starts where this member's block does.
  std::span<const std::byte* const> send;
  std::span<std::byte* const> receive;
  /// Of alltoallv alone, by member of this process.
  std::span<const Uneven> uneven;
};

/// The operations of one group in this process. One thread drives it. A process drives one member,
/// or several (one process with many cards).
class CollectiveBackend {
 public:
  virtual ~CollectiveBackend() = default;

  /// Members of the group, those of this process among them, by their rank in the group.
  virtual int size() const noexcept = 0;
  virtual std::span<const int> members() const noexcept = 0;

  /// What can be done; the rest is refused by the sweep with a name before anything starts.
  virtual bool can(Operation operation, Element element, Reduction reduction,
                   bool in_place) const noexcept = 0;

  /// ``bytes`` for each member of this process, cleared: on its card, or the host's. They live as
  /// long as the back end, and are reused by the next call that asks for no more.
  struct Buffers {
    std::vector<std::byte*> send, receive;
  };
  virtual const Buffers& buffers(std::size_t bytes) = 0;
  /// Copies between the host and the buffer of a member (its index among members()).
  virtual void write(std::size_t member, std::byte* to, std::span<const std::byte> from) = 0;
  virtual void read(std::size_t member, std::span<std::byte> to, const std::byte* from) = 0;
  /// Every byte of a part of a buffer.
  virtual void fill(std::size_t member, std::byte* to, std::uint8_t value, std::size_t bytes) = 0;
  /// Whether the timed calls should wander through the buffers, as nccl-tests does on cards, so
  /// that a small message is not always found in the cache.
  virtual bool rotates() const noexcept = 0;

  /// Whether post() comes back before the operation is done.
  virtual bool queues() const noexcept { return true; }
  /// Starts the operation for all members of this process. A library of the host returns when its
  /// part is done, one of cards when it is queued.
  virtual void post(const Call& call) = 0;
  /// Returns when all that was posted is done here. Throws kStopped and kDeadline where the
  /// library lets go (cards; the operation is then aborted, and the back end broken()), and
  /// kCollective with what the library says of itself.
  virtual void complete(const Watch& watch) = 0;

  /// Seconds on each member's card between the two marks around the operation posted last, or
  /// nothing where there is no card. Marks are set only between ``marks(true)`` and
  /// ``marks(false)``.
  virtual void marks(bool on) = 0;
  virtual std::span<const double> marked() = 0;

  /// Records what ``calls`` would post and runs it in one go (CUDA graphs). False where the library
  /// has nothing of the kind.
  virtual bool capture(std::span<const Call> calls) = 0;
  /// Posts what was captured.
  virtual void replay() = 0;

  /// True after an abort: no operation can follow.
  virtual bool broken() const noexcept = 0;
  /// The library as it names itself, with its version: ``Open MPI v5.0.11``, ``NCCL 2.27.3``.
  virtual std::string library() const = 0;
};

}  // namespace cwai

// A collective library as the sweep sees it: a group of ranks that can do each operation once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cwai {

enum class Operation : std::uint8_t {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kAllToAll,
  kReduce,
  kSendRecv,  ///< A ring: to the next rank, from the one before.
};

enum class Element : std::uint8_t { kFloat32, kFloat64, kInt32 };

/// Throw Error(kInvalid) for a name that is none.
Operation operation_of(std::string_view name);
Element element_of(std::string_view name);
/// A string literal: ``all_reduce`` …
const char* operation_name(Operation operation) noexcept;
constexpr std::size_t element_size(Element element) noexcept {
  return element == Element::kFloat64 ? 8 : 4;
}

/// One call: ``count`` elements per block. A block is the whole message, but for all_gather,
/// reduce_scatter and alltoall the part of one rank.
struct Call {
  Operation operation;
  Element element;
  const void* send;
  void* receive;
  int count;
};

class CollectiveBackend {
 public:
  virtual ~CollectiveBackend() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  virtual void barrier() = 0;
  /// Blocks until the operation is complete on this rank; reductions add; the root is rank 0.
  virtual void run(const Call& call) = 0;
  /// The largest of all ranks' values, each by itself, on every rank.
  using Values = std::array<double, 3>;
  virtual Values largest(const Values& mine) = 0;
};

}  // namespace cwai

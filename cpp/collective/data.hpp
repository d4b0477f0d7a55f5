// Exact data: what each member sends, and what must arrive. Reductions are of whole numbers so
// small that the element type holds every partial sum, in whatever order they are added: one wrong
// bit is a wrong result. Only an average of floating point may be off by two in the last place, for
// libraries divide before they add (nccl-tests allows the same, verifiable/verifiable.cu).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "collective/backend.hpp"
#include "support/pattern.hpp"

namespace cwai {

/// One member's view of a call.
struct Shape {
  Operation operation;
  Element element;
  Reduction reduction;
  int root;
  int rank;
  int size;
  std::size_t count;  ///< Elements per block, as in Call.

  /// By how many ``count`` the size of nccl-tests is larger than one block.
  std::size_t blocks() const noexcept;
  /// Elements in this member's buffers; 0 where it has none to read or to be written (reduce, but
  /// at the root; a root of broadcast has its data already).
  std::size_t sent() const noexcept;
  std::size_t received() const noexcept;
  /// In place, where in the one buffer its part starts, in elements.
  std::size_t send_offset() const noexcept;
  std::size_t receive_offset() const noexcept;
  /// Of alltoallv.
  Uneven uneven() const;
};

/// Makes and compares the data of one call, any part at a time: the whole need not fit into the
/// host's memory. Data repeats itself after a prime number of elements, which no library cuts by:
/// so most of it is copied and compared at the speed of memory.
class Data {
 public:
  Data(const Shape& shape, std::uint64_t seed);

  /// Writes elements [first, first + count) of what this member sends.
  void fill(std::size_t first, std::size_t count, std::byte* out) const;

  /// Compares elements [first, first + count) of what arrived; units are elements, ``first_bad``
  /// counts from the start of all.
  Mismatch check(std::size_t first, std::size_t count, const std::byte* in) const;

 private:
  // Consecutive elements by their place in the endless data.
  struct Run {
    std::size_t place, length;
  };
  // Part of the endless data: one period, where there is so much of it that this pays.
  using Period = std::vector<std::byte>;
  using Bits = std::uint64_t (Data::*)(std::size_t) const;

  Run arrived(std::size_t index) const;
  std::size_t place_of(int from, std::size_t index) const noexcept;
  std::uint64_t moved(std::size_t place) const noexcept;
  std::uint64_t contributed(std::size_t place) const noexcept;
  std::uint64_t reduced(std::size_t place) const noexcept;
  std::uint64_t contribution(int rank, std::size_t place) const noexcept;
  std::uint64_t coded(double value) const noexcept;
  Period period(std::size_t elements, Bits bits) const;
  void make(Run run, const Period& period, Bits bits, std::byte* out) const;

  Shape shape_;
  std::uint64_t seed_;
  std::size_t unit_;
  Uneven uneven_;
  // Of a sum: how large an addend may be, and who adds: the members of one class, all where there
  // is one class only.
  std::uint64_t exact_, classes_ = 1, weights_ = 1, slopes_ = 0, bases_ = 1;
  std::vector<std::uint64_t> members_of_, weight_of_;  // by class
  Period sent_, expected_;
};

}  // namespace cwai

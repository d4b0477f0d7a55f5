// What the stand-ins for libraries of collectives share: they work on the CPU, for the ranks of one
// machine, and pass data between processes through shared memory.
#pragma once

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cwai_test {

// ------------------------------------------------------------------------------ misbehaviour,
// asked

/// The number after ``word=RANK@`` among the words of ``all``; 0 where there is none behind the
/// rank, -1 where nothing of the kind is asked of this rank.
inline long asked(const std::string& all, const char* word, int rank) {
  const std::string begin = std::string(word) + "=" + std::to_string(rank);
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find(' ', at), all.size());
    const std::string one = all.substr(at, end - at);
    if (one == begin) return 0;
    if (one.starts_with(begin + "@")) return std::atol(one.c_str() + begin.size() + 1);
    at = end + 1;
  }
  return -1;
}

// ----------------------------------------------------------------------------------------- numbers

enum Reduction { kSum, kProd, kMax, kMin, kAvg };

template <int kBits, int kMantissa, int kBias>
struct SmallFloat {
  std::conditional_t<kBits == 8, std::uint8_t, std::uint16_t> bits;

  static constexpr int kSign = kBits - 1;
  static constexpr int kMagnitude = (1 << kSign) - 1;

  explicit operator double() const {
    const int magnitude = bits & kMagnitude;
    const int exponent = magnitude >> kMantissa;
    const int fraction = magnitude & ((1 << kMantissa) - 1);
    const double value =
        exponent == 0 ? std::ldexp(fraction, 1 - kBias - kMantissa)
                      : std::ldexp(fraction + (1 << kMantissa), exponent - kBias - kMantissa);
    return (bits >> kSign) != 0 ? -value : value;
  }
  static SmallFloat of(double value) {
    const double size = std::abs(value);
    long code = 0;
    if (size > 0) {
      const int exponent = std::max(std::ilogb(size), 1 - kBias);
      code = (static_cast<long>(exponent + kBias - 1) << kMantissa) +
             std::lrint(std::ldexp(size, kMantissa - exponent));
    }
    code = std::min<long>(code, kMagnitude) | (std::signbit(value) ? 1L << kSign : 0);
    return {static_cast<decltype(bits)>(code)};
  }
};

// In what a sum is kept until it is rounded once.
template <typename T>
struct Wide {
  using Type =
      std::conditional_t<std::is_integral_v<T>,
                         std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>,
                         double>;
};

template <typename T>
T narrow(typename Wide<T>::Type value) {
  if constexpr (std::is_class_v<T>) {
    return T::of(value);
  } else {
    return static_cast<T>(value);
  }
}

// ``parts``: of each rank, as many elements as there are results.
template <typename T>
void reduce_as(const std::vector<std::vector<std::byte>>& parts, std::byte* out, std::size_t count,
               int op, double factor) {
  using W = typename Wide<T>::Type;
  const auto element = [](const std::byte* from, std::size_t i) {
    T value;
    std::memcpy(&value, from + i * sizeof value, sizeof value);
    return static_cast<W>(value);
  };
  const W times = static_cast<W>(factor);
  for (std::size_t i = 0; i < count; ++i) {
    W all = element(parts[0].data(), i) * times;
    for (std::size_t rank = 1; rank < parts.size(); ++rank) {
      const W one = element(parts[rank].data(), i) * times;
      switch (op) {
        case kProd:
          all *= one;
          break;
        case kMax:
          all = std::max(all, one);
          break;
        case kMin:
          all = std::min(all, one);
          break;
        default:
          all += one;
      }
    }
    if (op == kAvg) all /= static_cast<W>(parts.size());
    const T result = narrow<T>(all);
    std::memcpy(out + i * sizeof result, &result, sizeof result);
  }
}

// ----------------------------------------------------------------------------------- shared memory

constexpr int kMostRanks = 64;
constexpr std::size_t kBox = 16384;

// What is on its way from one rank to another: the sender fills it, the receiver empties it.
struct alignas(64) Box {
  std::atomic<std::uint32_t> bytes;  // 0: empty
  std::array<std::byte, kBox> data;
};

// Waits until ``again`` says no more, and leaves the CPU to others where that takes long.
template <typename Again>
void patiently(Again&& again) {
  for (int turns = 0; again(); ++turns) {
    if (turns < 200) {
      sched_yield();
    } else {
      usleep(50);
    }
  }
}

struct Out {
  int to;
  const std::byte* data;
  std::size_t left;
};
struct In {
  int from;
  std::byte* data;
  std::size_t left;
};

// Sends and receives it all. What goes to or comes from one rank keeps its order. ``comm`` has its
// rank and size, ``aborted``, and the box from one rank to another.
template <typename Comm>
void exchange(const Comm& comm, std::vector<Out> outs, std::vector<In> ins) {
  patiently([&] {
    bool moved = true, open = true;
    while (moved && open) {
      if (comm.aborted) return false;
      moved = open = false;
      std::array<bool, kMostRanks> busy{};
      for (Out& out : outs) {
        if (out.left == 0 || std::exchange(busy[static_cast<std::size_t>(out.to)], true)) continue;
        open = true;
        Box& box = comm.box(comm.rank, out.to);
        if (box.bytes.load(std::memory_order_acquire) != 0) continue;
        const std::size_t bytes = std::min(out.left, kBox);
        std::memcpy(box.data.data(), out.data, bytes);
        box.bytes.store(static_cast<std::uint32_t>(bytes), std::memory_order_release);
        out.data += bytes;
        out.left -= bytes;
        moved = true;
      }
      busy.fill(false);
      for (In& in : ins) {
        if (in.left == 0 || std::exchange(busy[static_cast<std::size_t>(in.from)], true)) continue;
        open = true;
        Box& box = comm.box(in.from, comm.rank);
        const std::size_t bytes = box.bytes.load(std::memory_order_acquire);
        if (bytes == 0) continue;
        std::memcpy(in.data, box.data.data(), std::min(bytes, in.left));
        box.bytes.store(0, std::memory_order_release);
        in.data += bytes;
        in.left -= std::min(bytes, in.left);
        moved = true;
      }
    }
    return open;
  });
}

// Combines what all have to give, a part at a time: ``give(rank)`` is where this rank's part for
// another lies, null for one that gets nothing; ``reduce(parts, done)`` has of each rank the bytes
// from ``done`` on.
template <typename Comm, typename Give, typename Reduce>
void combine(const Comm& comm, std::size_t all, bool takes, const Give& give,
             const Reduce& reduce) {
  constexpr std::size_t kPart = 1 << 16;
  for (std::size_t done = 0; done < all && !comm.aborted; done += kPart) {
    const std::size_t bytes = std::min(kPart, all - done);
    std::vector<Out> outs;
    std::vector<In> ins;
    std::vector<std::vector<std::byte>> parts(static_cast<std::size_t>(comm.size),
                                              std::vector<std::byte>(takes ? bytes : 0));
    for (int rank = 0; rank < comm.size; ++rank) {
      if (const std::byte* from = give(rank)) outs.push_back({rank, from + done, bytes});
      if (takes) ins.push_back({rank, parts[static_cast<std::size_t>(rank)].data(), bytes});
    }
    exchange(comm, std::move(outs), std::move(ins));
    if (takes && !comm.aborted) reduce(parts, done);
  }
}

}  // namespace cwai_test

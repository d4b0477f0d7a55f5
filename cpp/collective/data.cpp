#include "collective/data.hpp"

#include <array>
#include <cstring>

#include "support/error.hpp"

namespace cwai {
namespace {

constexpr std::array<const char*, 7> kOperations = {
    "all_reduce", "all_gather", "reduce_scatter", "broadcast", "alltoall", "reduce", "sendrecv"};
constexpr std::array<std::string_view, 3> kElements = {"float32", "float64", "int32"};

// What is moved: any whole number below 2^24, different for every rank and index.
std::uint32_t moved(std::uint64_t seed, int rank, std::size_t index) noexcept {
  const std::uint64_t key = seed ^ (static_cast<std::uint64_t>(rank) << 44) ^ index;
  return static_cast<std::uint32_t>(mix(key) >> 40);
}

// What is added: base(i) + weight(rank) * slope(i), so that the sum over all ranks costs no loop
// over them. The largest value is 127 + 61 * 14 = 981, and 981 * 16384 < 2^24.
struct Addend {
  std::uint32_t base, slope;
};
Addend addend(std::uint64_t seed, std::size_t index) noexcept {
  const std::uint64_t h = mix(seed ^ index);
  return {static_cast<std::uint32_t>(h & 127), 1 + static_cast<std::uint32_t>((h >> 7) % 14)};
}
std::uint32_t weight(int rank) noexcept { return 1 + static_cast<std::uint32_t>(rank) % 61; }
std::uint64_t total_weight(int size) noexcept {
  std::uint64_t sum = 0;
  for (int r = 0; r < size; ++r) sum += weight(r);
  return sum;
}

bool reduces(Operation operation) noexcept {
  return operation == Operation::kAllReduce || operation == Operation::kReduceScatter ||
         operation == Operation::kReduce;
}

template <typename T>
void fill(const Shape& shape, std::uint64_t seed, T* out) noexcept {
  const std::size_t n = shape.sent();
  if (reduces(shape.operation)) {
    const std::uint32_t w = weight(shape.rank);
    for (std::size_t i = 0; i < n; ++i) {
      const Addend a = addend(seed, i);
      out[i] = static_cast<T>(a.base + w * a.slope);
    }
  } else {
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<T>(moved(seed, shape.rank, i));
  }
}

template <typename T>
Mismatch check(const Shape& shape, std::uint64_t seed, const T* in) noexcept {
  Mismatch found;
  const auto compare = [&](std::size_t at, T expected) {
    // Bytes, not values: a NaN must not pass, nor a negative zero.
    if (std::memcmp(&in[at], &expected, sizeof(T)) == 0) return;
    if (found.wrong++ == 0) found.first_bad = static_cast<std::int64_t>(at);
  };
  const std::size_t n = shape.received();
  if (reduces(shape.operation)) {
    const bool scattered = shape.operation == Operation::kReduceScatter;
    const std::size_t offset = scattered ? static_cast<std::size_t>(shape.rank) * shape.count : 0;
    const auto ranks = static_cast<std::uint64_t>(shape.size);
    const std::uint64_t weights = total_weight(shape.size);
    for (std::size_t i = 0; i < n; ++i) {
      const Addend a = addend(seed, offset + i);
      compare(i, static_cast<T>(ranks * a.base + weights * a.slope));
    }
    return found;
  }
  for (std::size_t i = 0; i < n; ++i) {
    int from = 0;
    std::size_t index = i;
    switch (shape.operation) {
      case Operation::kAllGather:
        from = static_cast<int>(i / shape.count);
        index = i % shape.count;
        break;
      case Operation::kAllToAll:
        from = static_cast<int>(i / shape.count);
        index = static_cast<std::size_t>(shape.rank) * shape.count + i % shape.count;
        break;
      case Operation::kSendRecv:
        from = (shape.rank + shape.size - 1) % shape.size;
        break;
      default:  // broadcast, from rank 0
        break;
    }
    compare(i, static_cast<T>(moved(seed, from, index)));
  }
  return found;
}

}  // namespace

Operation operation_of(std::string_view name) {
  for (std::size_t i = 0; i < kOperations.size(); ++i)
    if (name == kOperations[i]) return static_cast<Operation>(i);
  throw Error(Fault::kInvalid, "operation=" + std::string(name));
}

Element element_of(std::string_view name) {
  for (std::size_t i = 0; i < kElements.size(); ++i)
    if (name == kElements[i]) return static_cast<Element>(i);
  throw Error(Fault::kInvalid, "dtype=" + std::string(name));
}

const char* operation_name(Operation operation) noexcept {
  return kOperations[static_cast<std::size_t>(operation)];
}

std::size_t Shape::sent() const noexcept {
  switch (operation) {
    case Operation::kReduceScatter:
    case Operation::kAllToAll:
      return count * static_cast<std::size_t>(size);
    case Operation::kBroadcast:
      return rank == 0 ? count : 0;
    default:
      return count;
  }
}

std::size_t Shape::received() const noexcept {
  switch (operation) {
    case Operation::kAllGather:
    case Operation::kAllToAll:
      return count * static_cast<std::size_t>(size);
    case Operation::kReduce:
      return rank == 0 ? count : 0;
    case Operation::kBroadcast:  // the root sends from its own buffer
      return rank == 0 ? 0 : count;
    default:
      return count;
  }
}

void fill_send(const Shape& shape, std::uint64_t seed, std::byte* send) noexcept {
  switch (shape.element) {
    case Element::kFloat32:
      return fill(shape, seed, reinterpret_cast<float*>(send));
    case Element::kFloat64:
      return fill(shape, seed, reinterpret_cast<double*>(send));
    case Element::kInt32:
      return fill(shape, seed, reinterpret_cast<std::int32_t*>(send));
  }
}

Mismatch check_received(const Shape& shape, std::uint64_t seed,
                        const std::byte* received) noexcept {
  switch (shape.element) {
    case Element::kFloat32:
      return check(shape, seed, reinterpret_cast<const float*>(received));
    case Element::kFloat64:
      return check(shape, seed, reinterpret_cast<const double*>(received));
    case Element::kInt32:
      return check(shape, seed, reinterpret_cast<const std::int32_t*>(received));
  }
  return {};
}

}  // namespace cwai

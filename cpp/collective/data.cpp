#include "collective/data.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "support/error.hpp"

namespace cwai {
namespace {

constexpr std::array<const char*, kOperations> kOperationNames = {
    "all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce",
    "alltoall",   "alltoallv",  "gather",         "scatter",   "sendrecv"};
constexpr std::array<const char*, kElements> kElementNames = {
    "int8",   "uint8",   "int16",    "uint16",  "int32",   "uint32",      "int64",
    "uint64", "float16", "bfloat16", "float32", "float64", "float8_e4m3", "float8_e5m2"};
constexpr std::array<std::size_t, kElements> kElementSizes = {1, 1, 2, 2, 4, 4, 8,
                                                              8, 2, 2, 4, 8, 1, 1};
constexpr std::array<const char*, kReductions> kReductionNames = {"sum", "prod", "max",
                                                                  "min", "avg",  "premulsum"};

template <typename Enum, std::size_t kCount>
Enum named(const std::array<const char*, kCount>& names, const char* what, std::string_view name) {
  for (std::size_t i = 0; i < kCount; ++i)
    if (name == names[i]) return static_cast<Enum>(i);
  throw Error(Fault::kInvalid, std::string(what) + "=" + std::string(name));
}

// Floating point in few bits: exponent and mantissa, as IEEE 754 has them.
struct SmallFloat {
  int mantissa, bias;
};
constexpr SmallFloat kHalf{10, 15}, kBrain{7, 127}, kE4M3{3, 7}, kE5M2{2, 15};

// The nearest code, ties to even. ``value`` is not negative and not too large.
std::uint32_t nearest(double value, SmallFloat type) noexcept {
  if (value == 0) return 0;
  const int exponent = std::max(std::ilogb(value), 1 - type.bias);
  const auto steps =
      static_cast<std::uint32_t>(std::nearbyint(std::ldexp(value, type.mantissa - exponent)));
  return (static_cast<std::uint32_t>(exponent + type.bias - 1) << type.mantissa) + steps;
}

bool is_small(Element element) noexcept {
  return element == Element::kFloat16 || element == Element::kBfloat16 ||
         element == Element::kFloat8E4M3 || element == Element::kFloat8E5M2;
}
bool is_float(Element element) noexcept {
  return is_small(element) || element == Element::kFloat32 || element == Element::kFloat64;
}
SmallFloat small_float(Element element) noexcept {
  switch (element) {
    case Element::kFloat16:
      return kHalf;
    case Element::kBfloat16:
      return kBrain;
    case Element::kFloat8E4M3:
      return kE4M3;
    default:
      return kE5M2;
  }
}

// Up to here the type holds every whole number.
std::uint64_t exact_up_to(Element element) noexcept {
  switch (element) {
    case Element::kInt8:
      return 127;
    case Element::kUint8:
      return 255;
    case Element::kInt16:
      return 32767;
    case Element::kUint16:
      return 65535;
    case Element::kFloat16:
      return 2048;
    case Element::kBfloat16:
      return 256;
    case Element::kFloat8E4M3:
      return 16;
    case Element::kFloat8E5M2:
      return 8;
    case Element::kFloat32:
      return 1U << 24;
    default:
      return (1U << 31) - 1;
  }
}

// A prime, 2^20 - 3.
constexpr std::size_t kPeriod = 1048573;
// By how much the data of one member is ahead of that of the one before.
constexpr std::size_t kAhead = 648055;
// Elements that are made at a time.
constexpr std::size_t kChunk = 8192;

// A part of a hash as a number below ``bound``.
std::uint64_t below(std::uint64_t bits, std::uint64_t bound) noexcept {
  return ((bits & 0xFFFFFFFF) * bound) >> 32;
}

// How many shares of a block one member sends another by alltoallv.
std::size_t shares(int from, int to) noexcept {
  return 1 + static_cast<std::size_t>(from + to) % 3;
}
std::size_t all_shares(int rank, int size) noexcept {
  std::size_t all = 0;
  for (int peer = 0; peer < size; ++peer) all += shares(rank, peer);
  return all;
}

}  // namespace

Operation operation_of(std::string_view name) {
  return named<Operation>(kOperationNames, "operation", name);
}
Element element_of(std::string_view name) { return named<Element>(kElementNames, "dtype", name); }
Reduction reduction_of(std::string_view name) {
  return named<Reduction>(kReductionNames, "reduction", name);
}
const char* operation_name(Operation operation) noexcept {
  return kOperationNames[static_cast<std::size_t>(operation)];
}
const char* element_name(Element element) noexcept {
  return kElementNames[static_cast<std::size_t>(element)];
}
const char* reduction_name(Reduction reduction) noexcept {
  return kReductionNames[static_cast<std::size_t>(reduction)];
}
std::size_t element_size(Element element) noexcept {
  return kElementSizes[static_cast<std::size_t>(element)];
}
bool reduces(Operation operation) noexcept {
  return operation == Operation::kAllReduce || operation == Operation::kReduceScatter ||
         operation == Operation::kReduce;
}
bool has_root(Operation operation) noexcept {
  return operation == Operation::kBroadcast || operation == Operation::kReduce ||
         operation == Operation::kGather || operation == Operation::kScatter;
}

// ------------------------------------------------------------------------------------------- Shape

std::size_t Shape::blocks() const noexcept {
  switch (operation) {
    case Operation::kAllGather:
    case Operation::kReduceScatter:
    case Operation::kAllToAll:
    case Operation::kGather:
    case Operation::kScatter:
      return static_cast<std::size_t>(size);
    case Operation::kAllToAllV:  // members of three kinds; nccl-tests counts the one with the most
      return std::max({all_shares(0, size), all_shares(1, size), all_shares(2, size)});
    default:
      return 1;
  }
}

std::size_t Shape::sent() const noexcept {
  switch (operation) {
    case Operation::kReduceScatter:
    case Operation::kAllToAll:
      return count * static_cast<std::size_t>(size);
    case Operation::kAllToAllV:
      return count * all_shares(rank, size);
    case Operation::kBroadcast:
      return rank == root ? count : 0;
    case Operation::kScatter:
      return rank == root ? count * static_cast<std::size_t>(size) : 0;
    default:
      return count;
  }
}

std::size_t Shape::received() const noexcept {
  switch (operation) {
    case Operation::kAllGather:
    case Operation::kAllToAll:
      return count * static_cast<std::size_t>(size);
    case Operation::kAllToAllV:
      return count * all_shares(rank, size);
    case Operation::kGather:
      return rank == root ? count * static_cast<std::size_t>(size) : 0;
    case Operation::kReduce:
      return rank == root ? count : 0;
    case Operation::kBroadcast:
      return rank == root ? 0 : count;
    default:
      return count;
  }
}

std::size_t Shape::send_offset() const noexcept {
  const bool part =
      operation == Operation::kAllGather || (operation == Operation::kGather && rank == root);
  return part ? static_cast<std::size_t>(rank) * count : 0;
}

std::size_t Shape::receive_offset() const noexcept {
  const bool part =
      operation == Operation::kReduceScatter || (operation == Operation::kScatter && rank == root);
  return part ? static_cast<std::size_t>(rank) * count : 0;
}

Uneven Shape::uneven() const {
  Uneven all;
  std::size_t sends = 0, receives = 0;
  for (int peer = 0; peer < size; ++peer) {
    all.send_counts.push_back(count * shares(rank, peer));
    all.send_offsets.push_back(sends);
    all.receive_counts.push_back(count * shares(peer, rank));
    all.receive_offsets.push_back(receives);
    sends += all.send_counts.back();
    receives += all.receive_counts.back();
  }
  return all;
}

// -------------------------------------------------------------------------------------------- Data

Data::Data(const Shape& shape, std::uint64_t seed)
    : shape_(shape),
      seed_(mix(seed)),
      unit_(element_size(shape.element)),
      exact_(exact_up_to(shape.element)) {
  if (shape.operation == Operation::kAllToAllV) uneven_ = shape.uneven();
  if (reduces(shape.operation)) {
    const auto size = static_cast<std::uint64_t>(shape.size);
    const std::uint64_t most = shape.reduction == Reduction::kPreMulSum ? exact_ / 2 : exact_;
    // More members than the type can count: then only some of them add something to an element.
    classes_ = (size + most - 1) / most;
    const std::uint64_t largest = most / ((size + classes_ - 1) / classes_);
    if (largest < 8) {
      bases_ = largest + 1;
    } else {
      weights_ = std::min<std::uint64_t>(61, largest / 4);
      slopes_ = std::clamp<std::uint64_t>(largest / 2 / weights_, 1, 14);
      bases_ = std::min<std::uint64_t>(128, largest - weights_ * slopes_ + 1);
    }
    members_of_.assign(classes_, 0);
    weight_of_.assign(classes_, 0);
    for (std::uint64_t rank = 0; rank < size; ++rank) {
      ++members_of_[rank % classes_];
      weight_of_[rank % classes_] += 1 + rank % weights_;
    }
  }
  const bool reduced = reduces(shape.operation);
  sent_ = period(shape.sent(), reduced ? &Data::contributed : &Data::moved);
  expected_ = period(shape.received(), reduced ? &Data::reduced : &Data::moved);
}

Data::Period Data::period(std::size_t elements, Bits bits) const {
  if (elements <= kPeriod) return {};
  Period made(kPeriod * unit_);
  for (std::size_t place = 0; place < kPeriod; ++place) {
    const std::uint64_t value = (this->*bits)(place);
    std::memcpy(&made[place * unit_], &value, unit_);  // little-endian
  }
  return made;
}

std::size_t Data::place_of(int from, std::size_t index) const noexcept {
  return (index + static_cast<std::size_t>(from) * kAhead) % kPeriod;
}

std::uint64_t Data::moved(std::size_t place) const noexcept { return mix(seed_ ^ place); }

std::uint64_t Data::contributed(std::size_t place) const noexcept {
  return coded(static_cast<double>(contribution(shape_.rank, place)));
}

// Every number that comes here is one that a double holds.
std::uint64_t Data::coded(double value) const noexcept {
  if (is_small(shape_.element)) return nearest(value, small_float(shape_.element));
  if (shape_.element == Element::kFloat32)
    return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (shape_.element == Element::kFloat64) return std::bit_cast<std::uint64_t>(value);
  return static_cast<std::uint64_t>(value);
}

std::uint64_t Data::contribution(int rank, std::size_t place) const noexcept {
  const auto me = static_cast<std::uint64_t>(rank);
  const auto size = static_cast<std::uint64_t>(shape_.size);
  const std::uint64_t h = mix(seed_ ^ place);
  if (shape_.reduction == Reduction::kSum || shape_.reduction == Reduction::kPreMulSum) {
    if (classes_ > 1 && me % classes_ != below(mix(h), classes_)) return 0;
    // base + weight of the member x slope, so that the sum of all costs no loop over them
    const std::uint64_t slope = slopes_ == 0 ? 0 : 1 + below(h >> 32, slopes_);
    return below(h, bases_) + (1 + me % weights_) * slope;
  }
  const std::uint64_t first = below(h, size), second = below(h >> 32, size);
  const std::uint64_t half = exact_ / 2, more = mix(h);
  switch (shape_.reduction) {
    case Reduction::kProd:  // two members have a factor, all others one
      return (me == first ? 1 + below(more, std::min<std::uint64_t>(half - 1, 97)) : 1) *
             (me == second ? 1 + below(more >> 32, 2) : 1);
    case Reduction::kAvg:  // two members have something, all others nothing
      return (me == first ? 1 + below(more, half) : 0) +
             (me == second ? below(more >> 32, half) : 0);
    case Reduction::kMax:
      return me == first ? half + 1 + below(more, half - 1) : below(mix(h ^ me), half + 1);
    default:  // kMin
      return me == first ? below(more, half) : half + below(mix(h ^ me), half);
  }
}

std::uint64_t Data::reduced(std::size_t place) const noexcept {
  const auto size = static_cast<std::uint64_t>(shape_.size);
  const std::uint64_t h = mix(seed_ ^ place);
  if (shape_.reduction == Reduction::kSum || shape_.reduction == Reduction::kPreMulSum) {
    const std::uint64_t among = classes_ > 1 ? below(mix(h), classes_) : 0;
    const std::uint64_t slope = slopes_ == 0 ? 0 : 1 + below(h >> 32, slopes_);
    const std::uint64_t sum = members_of_[among] * below(h, bases_) + weight_of_[among] * slope;
    return coded(static_cast<double>(shape_.reduction == Reduction::kPreMulSum ? 2 * sum : sum));
  }
  const int first = static_cast<int>(below(h, size)),
            second = static_cast<int>(below(h >> 32, size));
  const std::uint64_t one = contribution(first, place);
  if (shape_.reduction == Reduction::kMax || shape_.reduction == Reduction::kMin)
    return coded(static_cast<double>(one));
  const std::uint64_t other = first == second ? 0 : contribution(second, place);
  if (shape_.reduction == Reduction::kProd)
    return coded(static_cast<double>(first == second ? one : one * other));
  const std::uint64_t sum = one + other;
  return is_float(shape_.element) ? coded(static_cast<double>(sum) / static_cast<double>(size))
                                  : sum / size;
}

void Data::make(Run run, const Period& period, Bits bits, std::byte* out) const {
  while (run.length > 0) {
    const std::size_t length = std::min(run.length, kPeriod - run.place);
    if (!period.empty()) {
      std::memcpy(out, &period[run.place * unit_], length * unit_);
    } else {
      for (std::size_t i = 0; i < length; ++i) {
        const std::uint64_t value = (this->*bits)(run.place + i);
        std::memcpy(out + i * unit_, &value, unit_);
      }
    }
    out += length * unit_;
    run = {0, run.length - length};
  }
}

void Data::fill(std::size_t first, std::size_t count, std::byte* out) const {
  if (reduces(shape_.operation)) {
    make({first % kPeriod, count}, sent_, &Data::contributed, out);
  } else {
    make({place_of(shape_.rank, first), count}, sent_, &Data::moved, out);
  }
}

// What stands at ``index`` of the receive buffer and after it, until another source begins.
Data::Run Data::arrived(std::size_t index) const {
  const auto me = static_cast<std::size_t>(shape_.rank);
  const auto all = static_cast<std::size_t>(-1);
  switch (shape_.operation) {
    case Operation::kAllReduce:
    case Operation::kReduce:
      return {index % kPeriod, all};
    case Operation::kReduceScatter:
      return {(me * shape_.count + index) % kPeriod, all};
    case Operation::kBroadcast:
      return {place_of(shape_.root, index), all};
    case Operation::kScatter:
      return {place_of(shape_.root, me * shape_.count + index), all};
    case Operation::kSendRecv:
      return {place_of((shape_.rank + shape_.size - 1) % shape_.size, index), all};
    case Operation::kAllGather:
    case Operation::kGather:
    case Operation::kAllToAll: {
      const std::size_t from = index / shape_.count, within = index % shape_.count;
      const std::size_t block = shape_.operation == Operation::kAllToAll ? me * shape_.count : 0;
      return {place_of(static_cast<int>(from), block + within), shape_.count - within};
    }
    case Operation::kAllToAllV: {
      const auto& offsets = uneven_.receive_offsets;
      const auto next = std::upper_bound(offsets.begin(), offsets.end(), index);
      const auto from = static_cast<std::size_t>(next - offsets.begin()) - 1;
      const std::size_t within = index - offsets[from];
      // Where this member's block lies in what the other sends.
      std::size_t block = 0;
      for (int to = 0; to < shape_.rank; ++to)
        block += shape_.count * shares(static_cast<int>(from), to);
      return {place_of(static_cast<int>(from), block + within),
              uneven_.receive_counts[from] - within};
    }
  }
  return {0, all};
}

Mismatch Data::check(std::size_t first, std::size_t count, const std::byte* in) const {
  const bool about =
      shape_.reduction == Reduction::kAvg && reduces(shape_.operation) && is_float(shape_.element);
  const Bits bits = reduces(shape_.operation) ? &Data::reduced : &Data::moved;
  Mismatch found;
  std::vector<std::byte> expected(std::min(kChunk, count) * unit_);
  for (std::size_t at = 0; at < count;) {
    Run run = arrived(first + at);
    run.length = std::min({run.length, count - at, kChunk});
    make(run, expected_, bits, expected.data());
    const std::byte* got = in + at * unit_;
    // Bytes, not values: a NaN must not pass, nor a negative zero.
    if (std::memcmp(got, expected.data(), run.length * unit_) != 0) {
      for (std::size_t i = 0; i < run.length; ++i) {
        std::uint64_t is = 0, should = 0;
        std::memcpy(&is, got + i * unit_, unit_);
        std::memcpy(&should, &expected[i * unit_], unit_);
        if (is == should) continue;
        if (about && (is > should ? is - should : should - is) <= 2) continue;
        if (found.wrong++ == 0) found.first_bad = static_cast<std::int64_t>(first + at + i);
      }
    }
    at += run.length;
  }
  return found;
}

}  // namespace cwai

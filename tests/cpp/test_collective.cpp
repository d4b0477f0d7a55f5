#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "collective/backend.hpp"
#include "collective/data.hpp"
#include "collective/host.hpp"
#include "collective/loopback.hpp"
#include "collective/sweep.hpp"
#include "runner.hpp"
#include "support/error.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

Operation operation(std::size_t i) { return static_cast<Operation>(i); }
Element element(std::size_t i) { return static_cast<Element>(i); }

// What the bits of an element mean, by its definition.
double meaning(Element type, const std::byte* at) {
  const auto whole = [at](auto value) {
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  };
  const auto small = [at](std::size_t bytes, int exponents, int mantissas) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, at, bytes);
    const int bias = (1 << (exponents - 1)) - 1;
    const int exponent = static_cast<int>((bits >> mantissas) & ((1U << exponents) - 1));
    const double mantissa = std::ldexp(bits & ((1U << mantissas) - 1), -mantissas);
    const double size =
        exponent == 0 ? std::ldexp(mantissa, 1 - bias) : std::ldexp(1 + mantissa, exponent - bias);
    return (bits >> (exponents + mantissas)) != 0 ? -size : size;
  };
  switch (type) {
    case Element::kInt8:
      return whole(std::int8_t{});
    case Element::kUint8:
      return whole(std::uint8_t{});
    case Element::kInt16:
      return whole(std::int16_t{});
    case Element::kUint16:
      return whole(std::uint16_t{});
    case Element::kInt32:
      return whole(std::int32_t{});
    case Element::kUint32:
      return whole(std::uint32_t{});
    case Element::kInt64:
      return whole(std::int64_t{});
    case Element::kUint64:
      return whole(std::uint64_t{});
    case Element::kFloat16:
      return small(2, 5, 10);
    case Element::kBfloat16:
      return small(2, 8, 7);
    case Element::kFloat32:
      return whole(float{});
    case Element::kFloat64:
      return whole(double{});
    case Element::kFloat8E4M3:
      return small(1, 4, 3);
    case Element::kFloat8E5M2:
      return small(1, 5, 2);
  }
  return NAN;
}

// The bits that mean ``value``: of small floats found by trying them all.
std::vector<std::byte> bits_of(Element type, double value) {
  std::vector<std::byte> out(element_size(type));
  const auto put = [&out](auto bits) {
    std::memcpy(out.data(), &bits, out.size());
    return out;
  };
  switch (type) {
    case Element::kFloat32:
      return put(static_cast<float>(value));
    case Element::kFloat64:
      return put(value);
    case Element::kFloat16:
    case Element::kBfloat16:
    case Element::kFloat8E4M3:
    case Element::kFloat8E5M2: {
      static std::map<std::pair<Element, double>, std::uint32_t> known;
      if (!known.contains({type, 0.0})) {
        for (std::uint32_t bits = 0; bits < 1U << (8 * out.size() - 1); ++bits)
          known.emplace(std::pair(type, meaning(type, put(bits).data())), bits);
      }
      const auto found = known.find({type, value});
      if (found == known.end()) throw Failure("no code means this value");
      return put(found->second);
    }
    default:
      return put(static_cast<std::uint64_t>(value));
  }
}

std::vector<std::byte> sent_by(Shape shape, int rank, std::uint64_t seed) {
  shape.rank = rank;
  std::vector<std::byte> out(shape.sent() * element_size(shape.element));
  Data(shape, seed).fill(0, shape.sent(), out.data());
  return out;
}

// What must arrive, put together from what all have sent by the definition of each operation.
std::vector<std::byte> by_definition(const Shape& shape, std::uint64_t seed) {
  const std::size_t unit = element_size(shape.element);
  const auto n = static_cast<std::size_t>(shape.size), me = static_cast<std::size_t>(shape.rank);
  const auto root = static_cast<std::size_t>(shape.root);
  std::vector<std::vector<std::byte>> sent;
  sent.reserve(n);
  for (int rank = 0; rank < shape.size; ++rank) sent.push_back(sent_by(shape, rank, seed));
  std::vector<std::byte> out(shape.received() * unit);
  const std::size_t block = shape.count * unit;
  const auto copy = [&](std::size_t to, std::size_t from, std::size_t offset, std::size_t bytes) {
    std::memcpy(&out[to], &sent[from][offset], bytes);
  };
  if (out.empty()) return out;
  switch (shape.operation) {
    case Operation::kAllGather:
    case Operation::kGather:
      for (std::size_t r = 0; r < n; ++r) copy(r * block, r, 0, block);
      break;
    case Operation::kAllToAll:
      for (std::size_t r = 0; r < n; ++r) copy(r * block, r, me * block, block);
      break;
    case Operation::kAllToAllV: {
      // A member's blocks are of (1 + (from + to) mod 3) counts, in order of the peers.
      const auto shares = [](std::size_t a, std::size_t b) { return 1 + (a + b) % 3; };
      std::size_t to = 0;
      for (std::size_t r = 0; r < n; ++r) {
        std::size_t offset = 0;
        for (std::size_t p = 0; p < me; ++p) offset += shares(r, p) * block;
        copy(to, r, offset, shares(r, me) * block);
        to += shares(r, me) * block;
      }
      CHECK_EQUAL(to, out.size());
      break;
    }
    case Operation::kBroadcast:
      copy(0, root, 0, block);
      break;
    case Operation::kScatter:
      copy(0, root, me * block, block);
      break;
    case Operation::kSendRecv:
      copy(0, (me + n - 1) % n, 0, block);
      break;
    default: {
      const std::size_t first = shape.operation == Operation::kReduceScatter ? me * shape.count : 0;
      for (std::size_t i = 0; i < shape.received(); ++i) {
        double result = 0;
        for (std::size_t r = 0; r < n; ++r) {
          const double v = meaning(shape.element, &sent[r][(first + i) * unit]);
          const bool start = r == 0;
          switch (shape.reduction) {
            case Reduction::kProd:
              result = start ? v : result * v;
              break;
            case Reduction::kMax:
              result = start ? v : std::max(result, v);
              break;
            case Reduction::kMin:
              result = start ? v : std::min(result, v);
              break;
            case Reduction::kPreMulSum:
              result += 2 * v;
              break;
            default:
              result += v;
          }
          // Every partial result can be held: no order of adding changes the sum.
          CHECK_EQUAL(meaning(shape.element, bits_of(shape.element, result).data()), result);
        }
        const std::vector<std::byte> bits = bits_of(shape.element, result);
        std::memcpy(&out[i * unit], bits.data(), unit);
      }
    }
  }
  return out;
}

void check_found_where_planted(const Shape& shape, std::uint64_t seed) {
  const std::size_t unit = element_size(shape.element);
  std::vector<std::byte> right = by_definition(shape, seed);
  const std::size_t count = shape.received();
  const Data data(shape, seed);
  const auto check = [&] { return data.check(0, count, right.data()); };
  CHECK_EQUAL(check().wrong, 0U);
  CHECK_EQUAL(check().first_bad, -1);
  if (count == 0) return;
  const std::size_t at = count / 2;
  right[at * unit] ^= std::byte{1};
  CHECK_EQUAL(check().wrong, 1U);
  CHECK_EQUAL(check().first_bad, static_cast<std::int64_t>(at));
  // In two parts it is found at the same place.
  const Mismatch second = data.check(at, count - at, &right[at * unit]);
  CHECK_EQUAL(second.wrong, 1U);
  CHECK_EQUAL(second.first_bad, static_cast<std::int64_t>(at));
  std::memset(right.data(), 0xFF, right.size());
  if (reduces(shape.operation))
    CHECK_EQUAL(check().wrong, count);
  else
    CHECK(check().wrong > count / 2 || count < 8);  // any byte may be meant
}

// A library of one process that can be told to misbehave.
class Pretended final : public HostBackend, public Meeting {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 2; }
  std::span<const int> members() const noexcept override { return {&rank_, 1}; }
  std::string library() const override { return "pretended 1.0"; }
  bool can(Operation operation, Element, Reduction, bool in_place) const noexcept override {
    return operation == Operation::kAllReduce && !in_place;
  }
  bool rotates() const noexcept override { return wander; }
  void barrier() override { ++barriers; }
  void post(const Call& call) override {
    ++runs;
    if (on_run) on_run(runs);
    places.push_back(call.receive[0]);
    const Shape shape{call.operation, call.element, call.reduction, 0, 0, 2, call.count};
    const std::vector<std::byte> out = by_definition(shape, seed);
    std::memcpy(call.receive[0], out.data(), out.size());
    if (corrupt) call.receive[0][3 * sizeof(float)] ^= std::byte{4};
  }
  void largest(std::span<double> all) override {
    for (std::size_t i = 0; i < all.size() && i < other.size(); ++i)
      all[i] = std::max(all[i], other[i]);
  }
  void least(std::span<double> all) override {
    for (double& value : all) value -= ahead;
  }
  void broadcast(std::span<std::byte>, int) override {}
  double exchange(double mine, int) override { return mine; }

  std::uint64_t seed = 9;
  bool corrupt = false, wander = false;
  std::vector<double> other{};  // what the other process says when they agree
  double ahead = 0;             // by how much the other one comes first
  std::uint64_t barriers = 0, runs = 0;
  std::vector<std::byte*> places;
  std::function<void(std::uint64_t)> on_run;

 private:
  int rank_ = 0;
};

PointSpec point() {
  return {.operation = Operation::kAllReduce,
          .element = Element::kFloat32,
          .reduction = Reduction::kSum,
          .root = 0,
          .in_place = false,
          .bytes = 64,
          .iterations = 0,
          .least = 5,
          .most = 20,
          .limit = kSecond,
          .warmup = 3,
          .verify = true,
          .seed = 9,
          .isolated = true,
          .pipelined = false,
          .graph = false,
          .late = 0};
}

}  // namespace

TEST(collective_results_are_exact_in_every_operation_and_type) {
  for (std::size_t o = 0; o < kOperations; ++o)
    for (std::size_t e = 0; e < kElements; ++e)
      for (const int size : {1, 2, 3, 7})
        for (int rank = 0; rank < size; ++rank)
          for (const std::size_t count : {1U, 100U})
            check_found_where_planted(
                {operation(o), element(e), Reduction::kSum, size / 2, rank, size, count}, 5);
}

TEST(collective_results_are_exact_in_every_reduction) {
  for (std::size_t e = 0; e < kElements; ++e)
    for (const Reduction reduction :
         {Reduction::kProd, Reduction::kMax, Reduction::kMin, Reduction::kPreMulSum})
      for (const int size : {1, 2, 5, 300})
        check_found_where_planted(
            {Operation::kReduceScatter, element(e), reduction, 0, size / 2, size, 40}, 11);
}

TEST(sums_of_more_members_than_a_type_can_count_are_exact) {
  for (const Element type : {Element::kInt8, Element::kFloat8E4M3, Element::kFloat8E5M2,
                             Element::kBfloat16, Element::kFloat16})
    check_found_where_planted({Operation::kAllReduce, type, Reduction::kSum, 0, 3, 2500, 40}, 3);
}

TEST(an_average_may_be_off_by_two_in_the_last_place) {
  for (const int size : {1, 2, 3, 7}) {
    for (std::size_t e = 0; e < kElements; ++e) {
      const Shape shape{Operation::kAllReduce, element(e), Reduction::kAvg, 0, 0, size, 200};
      const std::size_t unit = element_size(shape.element);
      const bool floats = e >= static_cast<std::size_t>(Element::kFloat16);
      const Data data(shape, 4);
      std::vector<std::byte> out(200 * unit);
      for (std::size_t i = 0; i < 200; ++i) {
        double sum = 0;
        for (int rank = 0; rank < size; ++rank) {
          const std::vector<std::byte> sent = sent_by(shape, rank, 4);
          sum += meaning(shape.element, &sent[i * unit]);
        }
        if (floats && unit < 4) continue;  // their nearest code is Data's own business
        const std::vector<std::byte> bits =
            bits_of(shape.element, floats ? sum / size : std::floor(sum / size));
        std::memcpy(&out[i * unit], bits.data(), unit);
      }
      if (floats && unit < 4) continue;
      CHECK_EQUAL(data.check(0, 200, out.data()).wrong, 0U);
      const auto moved_by = [&](int steps) {
        std::vector<std::byte> other = out;
        for (std::size_t i = 0; i < 200; ++i) {
          std::uint64_t bits = 0;
          std::memcpy(&bits, &other[i * unit], unit);
          bits += static_cast<std::uint64_t>(steps);
          std::memcpy(&other[i * unit], &bits, unit);
        }
        return data.check(0, 200, other.data()).wrong;
      };
      CHECK_EQUAL(moved_by(2), floats ? 0U : 200U);
      CHECK_EQUAL(moved_by(3), 200U);
    }
  }
}

TEST(long_data_repeats_itself_without_a_seam) {
  // More than one period, in parts that do not begin where a period does.
  const std::size_t count = (1 << 20) + 5000;
  for (const Operation operation : {Operation::kAllReduce, Operation::kAllGather}) {
    const Shape shape{operation, Element::kInt32, Reduction::kSum, 0, 1, 2, count};
    Shape little = shape;
    little.count = 3000;  // made without a period
    const Data data(shape, 8), few(little, 8);
    std::vector<std::int32_t> sent(count);
    data.fill(0, count, reinterpret_cast<std::byte*>(sent.data()));
    std::vector<std::int32_t> start(3000), middle(3000);
    few.fill(0, 3000, reinterpret_cast<std::byte*>(start.data()));
    CHECK(std::equal(start.begin(), start.end(), sent.begin()));
    data.fill(1048000, 3000, reinterpret_cast<std::byte*>(middle.data()));
    CHECK(std::equal(middle.begin(), middle.end(), sent.begin() + 1048000));
    std::vector<std::int32_t> arrived(shape.received());
    for (int rank = 0; rank < 2; ++rank) {
      Shape other = shape;
      other.rank = rank;
      const Data theirs(other, 8);
      std::vector<std::int32_t> from(count);
      theirs.fill(0, count, reinterpret_cast<std::byte*>(from.data()));
      for (std::size_t i = 0; i < count; ++i) {
        if (operation == Operation::kAllReduce)
          arrived[i] += from[i];
        else
          arrived[static_cast<std::size_t>(rank) * count + i] = from[i];
      }
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(arrived.data());
    CHECK_EQUAL(data.check(0, arrived.size(), bytes).wrong, 0U);
    arrived[1048600] += 1;
    CHECK_EQUAL(data.check(0, arrived.size(), bytes).wrong, 1U);
    CHECK_EQUAL(data.check(1048000, 3000, bytes + std::ptrdiff_t{4} * 1048000).first_bad, 1048600);
  }
}

TEST(collective_data_tells_ranks_seeds_and_places_apart) {
  for (const Operation operation : {Operation::kAllReduce, Operation::kAllGather}) {
    const auto contribution = [operation](int rank, std::uint64_t seed) {
      const Shape shape{operation, Element::kInt32, Reduction::kSum, 0, 0, 4, 1000};
      const std::vector<std::byte> sent = sent_by(shape, rank, seed);
      std::vector<std::int32_t> out(1000);
      std::memcpy(out.data(), sent.data(), sent.size());
      return out;
    };
    const auto same = [](const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b,
                         std::size_t shift) {
      std::size_t equal = 0;
      for (std::size_t i = 0; i + shift < a.size(); ++i) equal += a[i] == b[i + shift] ? 1 : 0;
      return equal;
    };
    CHECK(same(contribution(0, 1), contribution(1, 1), 0) < 50);
    CHECK(same(contribution(0, 1), contribution(0, 2), 0) < 50);
    CHECK(same(contribution(0, 1), contribution(0, 1), 64) < 50);
  }
}

TEST(a_loopback_group_does_every_operation_right) {
  for (const int size : {1, 2, 5}) {
    const auto group = loopback_group(size);
    NobodyElse nobody;
    Sweep sweep(nobody, *group, 1 << 16);
    for (std::size_t o = 0; o < kOperations; ++o)
      for (std::size_t e = 0; e < kElements; ++e)
        for (std::size_t r = 0; r < kReductions; ++r) {
          PointSpec spec = point();
          spec.operation = operation(o);
          spec.element = element(e);
          spec.reduction = static_cast<Reduction>(r);
          spec.root = size - 1;
          spec.bytes = 1 << 14;
          spec.most = 1;
          spec.least = 1;
          spec.warmup = 1;
          if (!group->can(spec.operation, spec.element, spec.reduction, false)) {
            CHECK_FAULT(sweep.measure(spec, Watch(kSecond)), Fault::kUnsupported);
            continue;
          }
          const PointResult result = sweep.measure(spec, Watch(10 * kSecond));
          CHECK_EQUAL(result.found.size(), static_cast<std::size_t>(size));
          for (const Mismatch& found : result.found) CHECK_EQUAL(found.wrong, 0U);
          CHECK_EQUAL(result.lateness.size(), static_cast<std::size_t>(size));
        }
  }
  CHECK_FAULT(loopback_group(0), Fault::kInvalid);
}

TEST(a_point_of_a_sweep_is_verified_warmed_up_and_timed) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  const PointResult result = sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(result.times.size(), 20U);
  CHECK_EQUAL(result.posts.size(), 20U);
  CHECK_EQUAL(result.bytes, 64U);
  CHECK_EQUAL(result.count, 16U);
  CHECK_EQUAL(result.found.size(), 1U);
  CHECK_EQUAL(result.found[0].wrong, 0U);
  CHECK_EQUAL(backend.runs, 1U + 3U + 20U);
  CHECK_EQUAL(backend.barriers, 1U + 3U + 20U);
  CHECK(result.device.empty());
  CHECK_EQUAL(result.pipelined_iterations, 0U);
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(result.times[i] > 0);
    CHECK(result.posts[i] <= result.times[i]);
  }
}

TEST(pipelined_operations_share_one_barrier) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  PointSpec spec = point();
  spec.isolated = false;
  spec.pipelined = true;
  spec.graph = true;
  spec.iterations = 50;
  const PointResult result = sweep.measure(spec, Watch(kSecond));
  CHECK(result.times.empty());
  CHECK(result.lateness.empty());
  CHECK_EQUAL(result.pipelined_iterations, 50U);
  CHECK(result.pipelined > 0);
  CHECK_EQUAL(result.graphed, 0.0);  // this library has none
  CHECK_EQUAL(backend.barriers, 1U + 3U + 1U);
  CHECK_EQUAL(backend.runs, 1U + 3U + 50U);
}

TEST(timed_calls_wander_through_the_buffers_where_the_library_wants_it) {
  Pretended backend;
  backend.wander = true;
  Sweep sweep(backend, backend, std::size_t{3} * 4096);
  sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(backend.places[1] - backend.places[0], 0);
  CHECK_EQUAL(backend.places[2] - backend.places[0], 4096);
  CHECK_EQUAL(backend.places[3] - backend.places[0], 8192);
  CHECK_EQUAL(backend.places[4] - backend.places[0], 0);
}

TEST(a_wrong_element_is_counted_and_placed) {
  Pretended backend;
  backend.corrupt = true;
  Sweep sweep(backend, backend, 64);
  const PointResult result = sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(result.found[0].wrong, 1U);
  CHECK_EQUAL(result.found[0].first_bad, 3);
}

TEST(who_comes_late_is_told_by_how_much) {
  Pretended backend;
  backend.ahead = 2e-3;  // the other one came two milliseconds before, to the barrier and from it
  Sweep sweep(backend, backend, 64);
  const PointResult result = sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(result.lateness.size(), 1U);
  for (const double late : result.lateness[0]) CHECK(late > 3.9e-3 && late < 4.1e-3);
}

TEST(a_rehearsed_delay_is_not_in_the_time_of_the_operation) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  PointSpec spec = point();
  spec.late = 2 * kSecond / 1000;
  spec.most = 5;
  const Nanos start = now();
  const PointResult result = sweep.measure(spec, Watch(kSecond));
  CHECK(now() - start >= 5 * spec.late);
  std::vector<double> times = result.times;
  std::sort(times.begin(), times.end());
  CHECK(times[2] < 1e-3);
}

TEST(iterations_fit_into_the_time_of_the_slowest_rank) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  PointSpec spec = point();
  spec.most = 1'000'000;
  backend.other = {static_cast<double>(kSecond) / 10, 0, 0};  // the other rank takes 0.1 s each
  CHECK_EQUAL(sweep.measure(spec, Watch(kSecond)).times.size(), 10U);
  spec.iterations = 7;
  CHECK_EQUAL(sweep.measure(spec, Watch(kSecond)).times.size(), 7U);
}

TEST(what_ends_one_rank_ends_all) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  backend.other = {0, 1, 0};
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kStopped);
  backend.other = {0, 0, 1};
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kDeadline);
  CHECK_EQUAL(backend.runs, 0U);  // they agree before the first operation
  // a second each: agreement before every iteration
  backend.other = {static_cast<double>(kSecond), 0, 0};
  backend.on_run = [](std::uint64_t run) {
    if (run == 6) request_stop();
  };
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kStopped);
  clear_stop();
  CHECK_EQUAL(backend.runs, 6U);
}

TEST(what_cannot_be_asked_for_is_refused) {
  Pretended backend;
  Sweep sweep(backend, backend, 64);
  PointSpec spec = point();
  spec.bytes = 1 << 20;
  CHECK_FAULT(sweep.measure(spec, Watch(kSecond)), Fault::kInvalid);
  spec = point();
  spec.root = 2;
  CHECK_FAULT(sweep.measure(spec, Watch(kSecond)), Fault::kInvalid);
  spec = point();
  spec.operation = Operation::kAllToAll;
  CHECK_FAULT(sweep.measure(spec, Watch(kSecond)), Fault::kUnsupported);
  CHECK_FAULT(operation_of("all_reduced"), Fault::kInvalid);
  CHECK_FAULT(element_of("float8"), Fault::kInvalid);
  CHECK_FAULT(reduction_of("average"), Fault::kInvalid);
}

TEST(clocks_are_compared_over_the_fastest_round_trips) {
  // Two ends of one wire in two threads, which share a clock.
  struct Wire {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<double> to[2];
  };
  class End final : public Meeting {
   public:
    End(Wire& wire, int rank) : wire_(wire), rank_(rank) {}
    int rank() const noexcept override { return rank_; }
    int size() const noexcept override { return 2; }
    void barrier() override {}
    void largest(std::span<double>) override {}
    void least(std::span<double>) override {}
    void broadcast(std::span<std::byte>, int) override {}
    double exchange(double mine, int with) override {
      std::unique_lock lock(wire_.mutex);
      wire_.to[with].push_back(mine);
      wire_.changed.notify_all();
      auto& in = wire_.to[rank_];
      wire_.changed.wait(lock, [&in] { return !in.empty(); });
      const double got = in.front();
      in.erase(in.begin());
      return got;
    }

   private:
    Wire& wire_;
    int rank_;
  };
  Wire wire;
  End first(wire, 0), second(wire, 1);
  const auto compared = [&](double mine, double theirs) {
    ClockOffset found;
    std::thread other([&] { found = clock_offset(second, theirs); });
    clock_offset(first, mine);
    other.join();
    return found;
  };
  for (const auto& [mine, theirs] : {std::pair(1.0, 2.0), std::pair(0.0, 0.0)}) {
    const ClockOffset found = compared(mine, theirs);
    CHECK(std::abs(found.seconds) < 0.01);  // one clock, which they do not know
    CHECK(found.uncertainty > 0 && found.uncertainty < 0.05);
  }
  const ClockOffset same = compared(3.0, 3.0);
  CHECK_EQUAL(same.seconds, 0.0);
  CHECK_EQUAL(same.uncertainty, 0.0);
  CHECK(this_kernel() != 0);
}

#include <cstring>
#include <functional>
#include <vector>

#include "collective/backend.hpp"
#include "collective/data.hpp"
#include "collective/sweep.hpp"
#include "runner.hpp"
#include "support/buffer.hpp"
#include "support/error.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

constexpr Operation kOperations[] = {
    Operation::kAllReduce, Operation::kAllGather, Operation::kReduceScatter, Operation::kBroadcast,
    Operation::kAllToAll,  Operation::kReduce,    Operation::kSendRecv};

// All ranks' contributions, put together by the definition of each operation: element by element,
// in double.
template <typename T>
std::vector<T> by_definition(const Shape& shape, std::uint64_t seed) {
  std::vector<std::vector<T>> sent;
  for (int rank = 0; rank < shape.size; ++rank) {
    Shape one = shape;
    one.rank = rank;
    sent.emplace_back(one.sent());
    fill_send(one, seed, reinterpret_cast<std::byte*>(sent.back().data()));
  }
  const auto n = static_cast<std::size_t>(shape.size);
  const auto me = static_cast<std::size_t>(shape.rank);
  std::vector<T> out(shape.received());
  for (std::size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    switch (shape.operation) {
      case Operation::kAllReduce:
      case Operation::kReduce:
        for (std::size_t r = 0; r < n; ++r) sum += static_cast<double>(sent[r][i]);
        out[i] = static_cast<T>(sum);
        break;
      case Operation::kReduceScatter:
        for (std::size_t r = 0; r < n; ++r)
          sum += static_cast<double>(sent[r][me * shape.count + i]);
        out[i] = static_cast<T>(sum);
        break;
      case Operation::kAllGather:
        out[i] = sent[i / shape.count][i % shape.count];
        break;
      case Operation::kAllToAll:
        out[i] = sent[i / shape.count][me * shape.count + i % shape.count];
        break;
      case Operation::kBroadcast:
        out[i] = sent[0][i];
        break;
      case Operation::kSendRecv:
        out[i] = sent[(me + n - 1) % n][i];
        break;
    }
  }
  return out;
}

template <typename T>
void check_every_operation(Element element) {
  for (const Operation operation : kOperations)
    for (const int size : {2, 3, 7})
      for (int rank = 0; rank < size; ++rank)
        for (const std::size_t count : {std::size_t{1}, std::size_t{1000}}) {
          const Shape shape{operation, element, rank, size, count};
          std::vector<T> right = by_definition<T>(shape, 5);
          auto* bytes = reinterpret_cast<std::byte*>(right.data());
          const Mismatch none = check_received(shape, 5, bytes);
          CHECK_EQUAL(none.wrong, 0U);
          CHECK_EQUAL(none.first_bad, -1);
          if (right.empty()) continue;
          const std::size_t at = right.size() / 2;
          right[at] += 1;
          const Mismatch one = check_received(shape, 5, bytes);
          CHECK_EQUAL(one.wrong, 1U);
          CHECK_EQUAL(one.first_bad, static_cast<std::int64_t>(at));
          right[at] -= 1;
          std::memset(bytes, 0xFF, right.size() * sizeof(T));
          CHECK_EQUAL(check_received(shape, 5, bytes).wrong, right.size());
        }
}

// A library of one process that can be told to misbehave.
class Pretended final : public CollectiveBackend {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 2; }
  void barrier() override { ++barriers; }
  void run(const Call& call) override {
    ++runs;
    if (on_run) on_run(runs);
    const Shape shape{call.operation, call.element, 0, 2, static_cast<std::size_t>(call.count)};
    const std::vector<float> out = by_definition<float>(shape, seed);
    std::memcpy(call.receive, out.data(), out.size() * sizeof(float));
    if (corrupt) static_cast<float*>(call.receive)[3] = -1;
  }
  Values largest(const Values& mine) override {
    Values all = mine;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = std::max(all[i], other[i]);
    return all;
  }

  std::uint64_t seed = 9;
  bool corrupt = false;
  Values other{};  // what the other rank says
  std::uint64_t barriers = 0;
  std::uint64_t runs = 0;
  std::function<void(std::uint64_t)> on_run;
};

PointSpec point() {
  return {.operation = Operation::kAllReduce,
          .element = Element::kFloat32,
          .bytes = 64,
          .iterations = 0,
          .least = 5,
          .most = 20,
          .limit = kSecond,
          .warmup = 3,
          .verify = true,
          .seed = 9};
}

}  // namespace

TEST(collective_results_are_exact_in_every_type) {
  check_every_operation<float>(Element::kFloat32);
  check_every_operation<double>(Element::kFloat64);
  check_every_operation<std::int32_t>(Element::kInt32);
}

TEST(collective_data_tells_ranks_seeds_and_places_apart) {
  for (const Operation operation : {Operation::kAllReduce, Operation::kAllGather}) {
    const auto contribution = [operation](int rank, std::uint64_t seed) {
      const Shape shape{operation, Element::kInt32, rank, 4, 1000};
      std::vector<std::int32_t> out(1000);
      fill_send(shape, seed, reinterpret_cast<std::byte*>(out.data()));
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

TEST(sums_stay_exact_up_to_the_most_ranks) {
  // 24 bits: every whole number up to here is a float32.
  const Shape shape{Operation::kAllReduce, Element::kInt32, 0, kMaxRanks, 1};
  double sum = 0;
  for (int rank = 0; rank < kMaxRanks; ++rank) {
    Shape one = shape;
    one.rank = rank;
    std::int32_t value = 0;
    fill_send(one, 3, reinterpret_cast<std::byte*>(&value));
    sum += value;
  }
  CHECK(sum <= (1 << 24));
  const auto exact = static_cast<std::int32_t>(sum);
  CHECK_EQUAL(check_received(shape, 3, reinterpret_cast<const std::byte*>(&exact)).wrong, 0U);
}

TEST(a_point_of_a_sweep_is_verified_warmed_up_and_timed) {
  Pretended backend;
  Sweep sweep(backend, 64);
  const PointResult result = sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(result.samples.size(), 20U);
  CHECK_EQUAL(result.bytes, 64U);
  CHECK_EQUAL(result.count, 16U);
  CHECK_EQUAL(result.wrong, 0U);
  CHECK_EQUAL(backend.runs, 1U + 3U + 20U);
  CHECK_EQUAL(backend.barriers, 3U + 20U);
  for (const double sample : result.samples) CHECK(sample > 0);
}

TEST(a_wrong_element_is_counted_and_placed) {
  Pretended backend;
  backend.corrupt = true;
  Sweep sweep(backend, 64);
  const PointResult result = sweep.measure(point(), Watch(kSecond));
  CHECK_EQUAL(result.wrong, 1U);
  CHECK_EQUAL(result.first_bad, 3);
}

TEST(iterations_fit_into_the_time_of_the_slowest_rank) {
  Pretended backend;
  Sweep sweep(backend, 64);
  PointSpec spec = point();
  spec.most = 1'000'000;
  backend.other = {static_cast<double>(kSecond) / 10, 0, 0};  // the other rank takes 0.1 s each
  CHECK_EQUAL(sweep.measure(spec, Watch(kSecond)).samples.size(), 10U);
  spec.iterations = 7;
  CHECK_EQUAL(sweep.measure(spec, Watch(kSecond)).samples.size(), 7U);
}

TEST(what_ends_one_rank_ends_all) {
  Pretended backend;
  Sweep sweep(backend, 64);
  backend.other = {0, 1, 0};
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kStopped);
  backend.other = {0, 0, 1};
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kDeadline);
  CHECK_EQUAL(backend.runs, 0U);  // they agree before the first operation
  backend.other = {static_cast<double>(kSecond), 0,
                   0};  // a second each: agreement before every iteration
  backend.on_run = [](std::uint64_t run) {
    if (run == 6) request_stop();
  };
  CHECK_FAULT(sweep.measure(point(), Watch(kSecond)), Fault::kStopped);
  clear_stop();
  CHECK_EQUAL(backend.runs, 6U);
}

// Write, read and send over queue pairs of the fake library (fake_verbs.cpp).
#include <array>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ends.hpp"
#include "probe/rdma.hpp"
#include "runner.hpp"
#include "support/error.hpp"
#include "with_fake_cuda.hpp"
#include "with_fake_verbs.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

using Sides = std::pair<std::unique_ptr<QueuePairs>, std::unique_ptr<QueuePairs>>;

QueuePairsSpec pairs_spec(int count) {
  QueuePairsSpec spec;
  spec.path.device = "fake0";
  spec.count = count;
  return spec;
}

Sides sides(const QueuePairsSpec& spec) {
  fake();
  Ends controls = tcp_pair(1, Waiting::kBlock);
  const Watch watch(5 * kSecond);
  Sides made;
  together(
      [&] { made.first = std::make_unique<QueuePairs>(std::move(controls.first), spec, watch); },
      [&] { made.second = std::make_unique<QueuePairs>(std::move(controls.second), spec, watch); });
  return made;
}

RdmaBandwidthSpec bandwidth(Verb verb, std::size_t size, std::uint64_t messages = 3000) {
  RdmaBandwidthSpec spec;
  spec.verb = verb;
  spec.size = size;
  spec.duration = 0;
  spec.messages = messages;
  spec.seed = 5;
  return spec;
}

std::pair<RdmaBandwidthResult, RdmaBandwidthResult> run(const Sides& both, RdmaBandwidthSpec spec) {
  std::pair<RdmaBandwidthResult, RdmaBandwidthResult> results;
  const Watch watch(20 * kSecond);
  RdmaBandwidthSpec other = spec;
  spec.initiates = true;
  other.initiates = spec.two_way;
  together([&] { results.first = measure_rdma_bandwidth(*both.first, spec, watch); },
           [&] { results.second = measure_rdma_bandwidth(*both.second, other, watch); });
  return results;
}

constexpr std::array kVerbs = {Verb::kWrite, Verb::kRead, Verb::kSend};

}  // namespace

TEST(rdma_the_end_that_initiates_counts_what_was_acknowledged) {
  for (const Verb verb : kVerbs)
    for (const int count : {1, 3, QueuePairs::kMost})
      for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, std::size_t{100'000}}) {
        if (count == QueuePairs::kMost && size > 4096) continue;
        const auto [mine, theirs] = run(sides(pairs_spec(count)), bandwidth(verb, size));
        CHECK(mine.messages >= 3000U);
        CHECK_EQUAL(mine.bytes, mine.messages * size);
        CHECK(!mine.samples.empty());
        CHECK(mine.elapsed > 0);
        CHECK_EQUAL(mine.wrong, 0U);
        CHECK_EQUAL(mine.first_bad, -1);
        CHECK_EQUAL(theirs.bytes, 0U);
        CHECK_EQUAL(theirs.peer_bytes, mine.bytes);
      }
  nothing_is_left();
}

TEST(rdma_two_ways_are_counted_by_both_ends) {
  for (const Verb verb : kVerbs) {
    RdmaBandwidthSpec spec = bandwidth(verb, 4096);
    spec.two_way = true;
    const auto [mine, theirs] = run(sides(pairs_spec(2)), spec);
    CHECK(mine.messages >= 3000U && theirs.messages >= 3000U);
    CHECK_EQUAL(mine.peer_bytes, theirs.bytes);
    CHECK_EQUAL(mine.wrong + theirs.wrong, 0U);
  }
}

TEST(rdma_one_end_serves_many_runs) {
  const Sides both = sides(pairs_spec(2));
  for (int i = 0; i < 3; ++i)
    for (const Verb verb : kVerbs)
      CHECK_EQUAL(run(both, bandwidth(verb, 512, 100)).first.wrong, 0U);
}

TEST(rdma_requests_are_built_in_the_queue_pair_where_the_device_can) {
  for (bool* const missing :
       std::array<bool*, 3>{nullptr, &fake().no_building, &fake().old_library}) {
    if (missing != nullptr) *missing = true;
    for (const Verb verb : kVerbs)
      for (const int inline_size : {0, 64}) {
        QueuePairsSpec spec = pairs_spec(2);
        spec.inline_size = inline_size;
        const unsigned long before = fake().built;
        const auto [mine, theirs] = run(sides(spec), bandwidth(verb, 64, 500));
        CHECK_EQUAL(mine.wrong, 0U);
        CHECK_EQUAL(std::string(mine.posting), missing == nullptr ? "ibv_wr" : "ibv_post_send");
        CHECK_EQUAL(fake().built - before >= 500, missing == nullptr);
      }
    if (missing != nullptr) *missing = false;
  }
  nothing_is_left();
}

TEST(rdma_any_depth_and_list_sends_all) {
  for (const auto& [depth, list] : {std::pair{1, 0}, {1, 1}, {2, 2}, {7, 3}, {128, 64}, {200, 0}}) {
    QueuePairsSpec spec = pairs_spec(2);
    spec.depth = depth;
    spec.post_list = list;
    for (const Verb verb : kVerbs)
      CHECK(run(sides(spec), bandwidth(verb, 64, 500)).first.messages >= 500U);
  }
}

TEST(rdma_cold_memory_and_inline_messages_arrive_as_well) {
  QueuePairsSpec spec = pairs_spec(2);
  spec.cold = true;
  spec.inline_size = 32;
  for (const Verb verb : kVerbs) {
    CHECK_EQUAL(run(sides(spec), bandwidth(verb, 32)).first.wrong, 0U);
    CHECK_EQUAL(run(sides(spec), bandwidth(verb, 4000)).first.wrong, 0U);
  }
}

TEST(rdma_wrong_data_is_found_by_both_ends) {
  for (const Verb verb : kVerbs) {
    const Sides both = sides(pairs_spec(2));
    fake().corrupt = true;
    const auto [mine, theirs] = run(both, bandwidth(verb, 4096, 100));
    fake().corrupt = false;
    CHECK_EQUAL(mine.wrong, 2U);  // a bit of each queue pair's message
    CHECK_EQUAL(mine.first_bad, 0);
    CHECK_EQUAL(theirs.wrong, 2U);
  }
}

TEST(rdma_what_the_nic_refuses_is_told_in_its_words) {
  const Sides both = sides(pairs_spec(1));
  fake().fail_sends_after = 500;
  const auto said = [](auto body) {
    try {
      body();
    } catch (const Error& error) {
      return std::string(fault_name(error.fault())) + " " + error.vendor_code();
    }
    return std::string("nothing");
  };
  RdmaBandwidthSpec spec = bandwidth(Verb::kWrite, 64, 100'000);
  RdmaBandwidthSpec other = spec;
  spec.initiates = true;
  std::string mine;
  together(
      [&] {
        mine = said([&] { measure_rdma_bandwidth(*both.first, spec, Watch(5 * kSecond)); });
        both.first->control().fence();  // as when its end is closed
      },
      [&] {
        CHECK_FAULT(measure_rdma_bandwidth(*both.second, other, Watch(5 * kSecond)),
                    Fault::kPeerClosed);
      });
  fake().fail_sends_after = -1;
  CHECK(mine.starts_with("transfer transport retry counter exceeded (status 12, vendor error 129"));
}

TEST(rdma_a_port_that_went_down_meanwhile_is_named) {
  for (const bool latency : {false, true}) {
    const Sides both = sides(pairs_spec(1));
    fake().fail_sends_after = 500;
    fake().devices[0].port_state = 1;  // of both ends: they are of one device
    const auto said = [&](QueuePairs& pairs, bool initiates) {
      const Watch watch(5 * kSecond);
      try {
        if (latency) {
          measure_rdma_latency(pairs, {.initiates = initiates, .iterations = 10'000}, watch);
        } else {
          RdmaBandwidthSpec spec = bandwidth(Verb::kWrite, 64, 100'000);
          spec.initiates = initiates;
          measure_rdma_bandwidth(pairs, spec, watch);
        }
      } catch (const Error& error) {
        return std::string(fault_name(error.fault())) + " " + error.subject();
      }
      return std::string("nothing");
    };
    std::string mine;
    std::string theirs;
    together([&] { mine = said(*both.first, true); }, [&] { theirs = said(*both.second, false); });
    fake().fail_sends_after = -1;
    fake().devices[0].port_state = 4;
    CHECK_EQUAL(mine, "device fake0:1");
    CHECK_EQUAL(theirs, "device fake0:1");
  }
}

TEST(rdma_round_trips_are_kept_each) {
  for (const Verb verb : kVerbs)
    for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{5000}}) {
      const Sides both = sides(pairs_spec(1));
      RdmaLatencySpec spec{.verb = verb, .size = size, .iterations = 200};
      RdmaLatencySpec other = spec;
      spec.initiates = true;
      LatencyResult asks;
      LatencyResult answers;
      const Watch watch(20 * kSecond);
      together([&] { asks = measure_rdma_latency(*both.first, spec, watch); },
               [&] { answers = measure_rdma_latency(*both.second, other, watch); });
      CHECK_EQUAL(asks.samples.size(), 200U);
      CHECK(answers.samples.empty());
      for (const double sample : asks.samples) CHECK(sample > 0);
      CHECK_EQUAL(asks.wrong + answers.wrong, 0U);
    }
  nothing_is_left();
}

TEST(rdma_an_end_that_waits_for_nobody_runs_out_of_time) {
  const Sides both = sides(pairs_spec(1));
  const auto short_watch = [] { return Watch(300'000'000); };
  RdmaBandwidthSpec target = bandwidth(Verb::kSend, 64);
  CHECK_FAULT(measure_rdma_bandwidth(*both.second, target, short_watch()), Fault::kDeadline);
}

TEST(rdma_ends_that_differ_say_in_what) {
  const Sides both = sides(pairs_spec(1));
  RdmaBandwidthSpec spec = bandwidth(Verb::kWrite, 64);
  RdmaBandwidthSpec other = bandwidth(Verb::kRead, 64);
  spec.initiates = true;
  const Watch watch(5 * kSecond);
  together(
      [&] { CHECK_FAULT(measure_rdma_bandwidth(*both.first, spec, watch), Fault::kDisagreed); },
      [&] { CHECK_FAULT(measure_rdma_bandwidth(*both.second, other, watch), Fault::kDisagreed); });
}

TEST(rdma_what_cannot_be_is_refused) {
  const Watch watch(kSecond);
  const auto refused = [&](auto change) {
    QueuePairsSpec spec = pairs_spec(1);
    change(spec);
    fake();
    Ends controls = tcp_pair(1, Waiting::kBlock);
    CHECK_FAULT(QueuePairs(std::move(controls.first), spec, watch), Fault::kInvalid);
  };
  refused([](QueuePairsSpec& s) { s.count = 0; });
  refused([](QueuePairsSpec& s) { s.count = QueuePairs::kMost + 1; });
  refused([](QueuePairsSpec& s) { s.depth = 0; });
  refused([](QueuePairsSpec& s) { s.post_list = s.depth + 1; });
  refused([](QueuePairsSpec& s) { s.inline_size = 5000; });
  refused([](QueuePairsSpec& s) { s.path.mtu = 1500; });
  nothing_is_left();
}

TEST(rdma_messages_go_from_gpu_to_gpu) {
  fake_gpu();
  QueuePairsSpec spec = pairs_spec(2);
  spec.gpu = "0000:1b:00.0";
  for (const Verb verb : kVerbs)
    for (const auto& [device_can, nic_can, way] :
         {std::tuple{true, true, "dma-buf"}, {true, false, "peermem"}, {false, true, "peermem"}}) {
      fake_gpu().dma_buf = device_can;
      const Sides both = sides(spec);
      fake().no_dma_buf = !nic_can;
      const auto [mine, theirs] = run(both, bandwidth(verb, 5000, 200));
      fake().no_dma_buf = false;
      CHECK_EQUAL(mine.wrong, 0U);
      CHECK_EQUAL(std::string(mine.memory), way);
      CHECK_EQUAL(std::string(theirs.memory), way);
      no_gpu_is_in_use();
    }
  fake_gpu().dma_buf = true;
  nothing_is_left();
}

TEST(rdma_a_gpu_that_is_not_there_or_full_is_named) {
  fake_gpu();
  QueuePairsSpec spec = pairs_spec(1);
  spec.gpu = "0000:1c:00.0";
  CHECK_FAULT(Memory(*sides(spec).first, 1, 64), Fault::kDevice);
  spec.gpu = "0000:1b:00.0";
  fake_gpu().full = true;
  CHECK_FAULT(Memory(*sides(spec).first, 1, 64), Fault::kDevice);
  fake_gpu().full = false;
  const Sides both = sides(spec);
  CHECK_FAULT(measure_rdma_latency(*both.first, {.initiates = true}, Watch(kSecond)),
              Fault::kInvalid);
  no_gpu_is_in_use();
}

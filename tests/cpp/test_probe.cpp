#include <unistd.h>

#include <algorithm>

#include "ends.hpp"
#include "probe/bandwidth.hpp"
#include "probe/latency.hpp"
#include "probe/run.hpp"
#include "runner.hpp"
#include "support/error.hpp"
#include "support/progress.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

BandwidthSpec bandwidth(bool sends, bool receives) {
  BandwidthSpec spec;
  spec.size = 65536;
  spec.sends = sends;
  spec.receives = receives;
  spec.duration = 300'000'000;
  spec.warmup = 10'000'000;
  spec.interval = 20'000'000;
  spec.seed = 11;
  return spec;
}

LatencySpec latency(bool initiates) {
  LatencySpec spec;
  spec.initiates = initiates;
  spec.iterations = 200;
  spec.warmup = 10;
  return spec;
}

}  // namespace

TEST(bandwidth_one_way_is_counted_by_the_receiver) {
  on_every_transport([](Ends ends) {
    BandwidthResult sender;
    BandwidthResult receiver;
    const Watch watch(10 * kSecond);
    together([&] { sender = measure_bandwidth(*ends.first, bandwidth(true, false), watch); },
             [&] { receiver = measure_bandwidth(*ends.second, bandwidth(false, true), watch); });
    CHECK_EQUAL(sender.bytes, 0U);
    CHECK(sender.samples.empty());
    CHECK(!receiver.samples.empty());
    CHECK_EQUAL(receiver.bytes, receiver.messages * 65536);
    CHECK(receiver.elapsed > 0 && receiver.elapsed < 2 * kSecond);
    CHECK(receiver.warmup_messages >= 1);
    CHECK_EQUAL(receiver.wrong, 0U);
    CHECK_EQUAL(sender.peer_bytes, receiver.bytes);
    CHECK_EQUAL(sender.peer_elapsed, receiver.elapsed);
    // The samples and the total are two views of the same bytes.
    const double rate = static_cast<double>(receiver.bytes) / seconds(receiver.elapsed);
    const auto [low, high] = std::minmax_element(receiver.samples.begin(), receiver.samples.end());
    CHECK(*low > 0 && *low < 1.5 * rate && *high > rate / 1.5);
  });
}

TEST(bandwidth_two_way_counts_on_both_ends) {
  on_every_transport([](Ends ends) {
    BandwidthResult first;
    BandwidthResult second;
    const Watch watch(10 * kSecond);
    together([&] { first = measure_bandwidth(*ends.first, bandwidth(true, true), watch); },
             [&] { second = measure_bandwidth(*ends.second, bandwidth(true, true), watch); });
    CHECK(first.bytes > 0);
    CHECK(second.bytes > 0);
    CHECK_EQUAL(first.peer_bytes, second.bytes);
    CHECK_EQUAL(second.peer_bytes, first.bytes);
    CHECK_EQUAL(first.wrong + second.wrong, 0U);
  });
}

TEST(bandwidth_by_messages_counts_them) {
  on_every_transport([](Ends ends) {
    BandwidthSpec spec = bandwidth(true, false);
    spec.duration = 0;
    spec.warmup = 0;
    spec.messages = 40;
    spec.warmup_messages = 5;
    spec.size = 1000;
    BandwidthSpec other = spec;
    other.sends = false;
    other.receives = true;
    BandwidthResult receiver;
    const Watch watch(10 * kSecond);
    together([&] { measure_bandwidth(*ends.first, spec, watch); },
             [&] { receiver = measure_bandwidth(*ends.second, other, watch); });
    CHECK_EQUAL(receiver.warmup_messages, 6U);  // the sixth opens the window
    CHECK_EQUAL(receiver.messages, 40U);
    CHECK(!receiver.samples.empty());
  });
}

TEST(bandwidth_notices_one_flipped_bit) {
  Ends ends = tcp_pair(1, Waiting::kBlock);
  BandwidthSpec spec = bandwidth(true, false);
  spec.duration = 0;
  spec.warmup = 0;
  spec.messages = 3;
  spec.size = 500;
  BandwidthSpec other = spec;
  other.sends = false;
  other.receives = true;
  // What the receiving end gets: the agreement, 1 + 3 messages, 1 flagged, then the one to be
  // verified.
  CorruptingConnection corrupting(*ends.second, 7, 123);
  BandwidthResult receiver;
  const Watch watch(10 * kSecond);
  together([&] { measure_bandwidth(*ends.first, spec, watch); },
           [&] { receiver = measure_bandwidth(corrupting, other, watch); });
  CHECK_EQUAL(receiver.wrong, 1U);
  CHECK_EQUAL(receiver.first_bad, 123);
}

TEST(a_garbled_control_record_is_noticed) {
  Ends ends = tcp_pair(1, Waiting::kBlock);
  CorruptingConnection corrupting(*ends.second, 1, 9);
  const Watch watch(5 * kSecond);
  together(
      [&] {
        CHECK_FAULT(measure_bandwidth(*ends.first, bandwidth(true, false), watch),
                    Fault::kPeerClosed);
      },
      [&] {
        CHECK_FAULT(measure_bandwidth(corrupting, bandwidth(false, true), watch), Fault::kGarbled);
        ends.second.reset();
      });
}

TEST(latency_keeps_every_round_trip) {
  on_every_transport([](Ends ends) {
    LatencyResult asks;
    LatencyResult answers;
    const Watch watch(10 * kSecond);
    together([&] { asks = measure_latency(*ends.first, latency(true), watch); },
             [&] { answers = measure_latency(*ends.second, latency(false), watch); });
    CHECK_EQUAL(asks.samples.size(), 200U);
    for (const double sample : asks.samples) CHECK(sample > 0 && sample < 5);
    CHECK(answers.samples.empty());
    CHECK_EQUAL(asks.wrong + answers.wrong, 0U);
  });
}

TEST(latency_ends_with_its_duration) {
  Ends ends = memory_pair(1, Waiting::kBlock);
  LatencySpec asks = latency(true);
  asks.iterations = 100'000'000;
  asks.duration = 50'000'000;
  LatencySpec answers = asks;
  answers.initiates = false;
  LatencyResult result;
  const Watch watch(10 * kSecond);
  const Nanos start = now();
  together([&] { result = measure_latency(*ends.first, asks, watch); },
           [&] { measure_latency(*ends.second, answers, watch); });
  CHECK(!result.samples.empty());
  CHECK(now() - start < 2 * kSecond);
}

TEST(ends_that_disagree_say_in_what) {
  on_every_transport([](Ends ends) {
    BandwidthSpec other = bandwidth(false, true);
    other.size = 4096;
    const Watch watch(5 * kSecond);
    together(
        [&] {
          CHECK_FAULT(measure_bandwidth(*ends.first, bandwidth(true, false), watch),
                      Fault::kDisagreed);
        },
        [&] { CHECK_FAULT(measure_bandwidth(*ends.second, other, watch), Fault::kDisagreed); });
  });
  Ends ends = memory_pair(1, Waiting::kBlock);
  const Watch watch(5 * kSecond);
  together(
      [&] {
        CHECK_FAULT(measure_bandwidth(*ends.first, bandwidth(true, false), watch),
                    Fault::kDisagreed);
      },
      [&] {
        CHECK_FAULT(measure_latency(*ends.second, latency(false), watch), Fault::kDisagreed);
      });
}

TEST(a_run_ends_when_the_peer_dies) {
  on_every_transport([](Ends ends) {
    BandwidthSpec spec = bandwidth(true, false);
    spec.duration = 20 * kSecond;
    const Watch watch(10 * kSecond);
    const Nanos start = now();
    together([&] { CHECK_FAULT(measure_bandwidth(*ends.first, spec, watch), Fault::kPeerClosed); },
             [&] {
               BandwidthSpec other = spec;
               other.sends = false;
               other.receives = true;
               CHECK_FAULT(measure_bandwidth(*ends.second, other, Watch(200'000'000)),
                           Fault::kDeadline);
               ends.second.reset();
             });
    CHECK(now() - start < 3 * kSecond);
  });
}

TEST(a_run_ends_at_its_deadline_when_the_peer_hangs) {
  on_every_transport([](Ends ends) {
    const Nanos start = now();
    CHECK_FAULT(measure_latency(*ends.first, latency(true), Watch(150'000'000)), Fault::kDeadline);
    CHECK(now() - start < kSecond);
  });
}

TEST(stop_ends_both_ends_of_a_run) {
  on_every_transport([](Ends ends) {
    BandwidthSpec spec = bandwidth(true, true);
    spec.duration = 20 * kSecond;
    const Watch watch(15 * kSecond);
    const Nanos start = now();
    std::thread stopper([] {
      usleep(150'000);
      request_stop();
    });
    together([&] { CHECK_FAULT(measure_bandwidth(*ends.first, spec, watch), Fault::kStopped); },
             [&] { CHECK_FAULT(measure_bandwidth(*ends.second, spec, watch), Fault::kStopped); });
    stopper.join();
    clear_stop();
    CHECK(now() - start < 2 * kSecond);
  });
}

TEST(impossible_specs_are_refused) {
  Ends ends = memory_pair(1, Waiting::kBlock);
  const Watch watch(kSecond);
  BandwidthSpec nothing = bandwidth(true, false);
  nothing.size = 0;
  CHECK_FAULT(measure_bandwidth(*ends.first, nothing, watch), Fault::kInvalid);
  CHECK_FAULT(measure_bandwidth(*ends.first, bandwidth(false, false), watch), Fault::kInvalid);
  BandwidthSpec endless = bandwidth(true, false);
  endless.duration = 0;
  CHECK_FAULT(measure_bandwidth(*ends.first, endless, watch), Fault::kInvalid);
  LatencySpec none = latency(true);
  none.iterations = 0;
  CHECK_FAULT(measure_latency(*ends.first, none, watch), Fault::kInvalid);
}

// RDMA without a NIC: both ends of a connection over the fake library (fake_verbs.cpp).
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "ends.hpp"
#include "runner.hpp"
#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "transport/verbs.hpp"
#include "with_fake_verbs.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

VerbsSpec spec(int lanes = 1) {
  VerbsSpec wanted;
  wanted.path.device = "fake0";
  wanted.lanes = lanes;
  return wanted;
}

Ends verbs_pair(int lanes) {
  fake();
  Ends controls = tcp_pair(1, Waiting::kBlock);
  const Watch watch(5 * kSecond);
  Ends ends;
  const auto over = [&](std::unique_ptr<Connection> control) {
    return verbs_over(std::move(control), spec(lanes), Waiting::kSpin, watch);
  };
  together([&] { ends.first = over(std::move(controls.first)); },
           [&] { ends.second = over(std::move(controls.second)); });
  return ends;
}

// Drives both ends, once at least, until so many operations have completed at both together, all
// well.
void until(const Ends& ends, std::size_t count) {
  const Watch watch(5 * kSecond);
  std::array<Completion, 8> some;
  std::size_t done = 0;
  do {
    watch.check();
    for (Connection* end : {ends.first.get(), ends.second.get()}) {
      const std::size_t n = end->poll(some);
      for (std::size_t i = 0; i < n; ++i) CHECK_EQUAL(some[i].status, 0);
      done += n;
    }
  } while (done < count);
}

// One message on a control connection each way.
std::vector<std::byte> swap(Connection& control, std::span<const std::byte> mine) {
  std::vector<std::byte> theirs(mine.size());
  control.post_receive(0, theirs, 0);
  control.post_send(0, mine, 0);
  const Watch watch(5 * kSecond);
  std::array<Completion, 2> some;
  for (std::size_t done = 0; done < 2; watch.check()) done += control.wait(some, watch.slice_end());
  return theirs;
}

}  // namespace

TEST(verbs_messages_land_where_they_were_posted) {
  for (const int lanes : {1, 3}) {
    const Ends ends = verbs_pair(lanes);
    constexpr std::size_t kSize = 10'000;
    std::vector<std::byte> there(kSize, std::byte{1});
    std::vector<std::byte> back(kSize, std::byte{2});
    std::vector<std::byte> at_first(kSize);
    std::vector<std::byte> at_second(kSize);
    ends.first->post_receive(lanes - 1, at_first, 0);
    ends.second->post_receive(lanes - 1, at_second, 0);
    ends.first->post_send(lanes - 1, there, 0);
    ends.second->post_send(lanes - 1, back, 0);
    until(ends, 4);
    CHECK(at_second == there);
    CHECK(at_first == back);
  }
  nothing_is_left();
}

TEST(verbs_a_number_is_another_buffer_s_only_when_nobody_waits_for_it) {
  const Ends ends = verbs_pair(1);
  constexpr std::size_t kSize = 64;
  constexpr std::size_t kNumbers = 255;
  std::vector<std::byte> memory((kNumbers + 1) * kSize);
  const auto buffer = [&](std::size_t i) { return std::span(memory).subspan(i * kSize, kSize); };
  std::vector<std::byte> message(kSize, std::byte{9});
  for (std::size_t i = 0; i < kNumbers; ++i) {  // every number is taken
    ends.second->post_receive(0, buffer(i), i);
    ends.first->post_send(0, message, i);
    until(ends, 2);
  }
  ends.second->post_receive(0, buffer(0), 0);         // waits under its old number
  ends.second->post_receive(0, buffer(kNumbers), 1);  // needs one
  until(ends, 0);                                     // the other end has read of both
  std::vector<std::byte> first(kSize, std::byte{1});
  std::vector<std::byte> second(kSize, std::byte{2});
  ends.first->post_send(0, first, 0);
  ends.first->post_send(0, second, 1);
  until(ends, 4);
  CHECK(std::memcmp(buffer(0).data(), first.data(), kSize) == 0);
  CHECK(std::memcmp(buffer(kNumbers).data(), second.data(), kSize) == 0);
}

TEST(verbs_memory_taken_back_stays_with_the_nic_until_what_is_sent_from_it_is_done) {
  const Ends ends = verbs_pair(1);
  std::vector<std::byte> whole(64 << 10);
  const auto part = std::span(whole).subspan(16 << 10, 16 << 10);
  ends.first->lend(whole);
  ends.first->lend(part);
  std::vector<std::byte> there(part.size());
  ends.second->post_receive(0, there, 0);
  until(ends, 0);
  until(ends, 0);  // the other end has heard of it
  fake().devices[0].silent = true;
  ends.first->post_send(0, part, 0);
  ends.first->take_back(part);
  CHECK_EQUAL(fake().freed_too_early, 0);
  // All is flushed before its queue pair goes.
  fake().cut_short = 0;
  ends.first->fence();
  fake().devices[0].silent = false;
  CHECK_EQUAL(fake().cut_short, 0);
  std::array<Completion, 2> done;
  CHECK_EQUAL(ends.first->poll(done), 1U);
  CHECK_EQUAL(done[0].status, ECANCELED);
  ends.first->take_back(whole);
  CHECK(!fake().registered(part.data(), part.size()));  // at its ends others share pages with it
}

TEST(verbs_a_lane_that_breaks_costs_no_other_its_completions) {
  const Ends ends = verbs_pair(2);
  std::vector<std::byte> message(64, std::byte{5});
  std::vector<std::byte> there(64), too_large(65);
  ends.second->post_receive(0, too_large, 0);
  ends.second->post_receive(1, there, 1);
  until(ends, 0);
  until(ends, 0);
  ends.first->post_send(1, message, 1);
  ends.first->post_send(0, message, 0);  // of another size than there is room for
  std::array<Completion, 4> done;
  std::array<int, 2> status{-1, -1};
  for (const Watch watch(5 * kSecond); status[0] < 0 || status[1] < 0; watch.check()) {
    const std::size_t n = ends.first->poll(done);
    for (std::size_t i = 0; i < n; ++i) status.at(done[i].tag) = done[i].status;
  }
  CHECK_EQUAL(status[0], EMSGSIZE);
  CHECK_EQUAL(status[1], 0);
  CHECK_EQUAL(ends.second->poll(done), 1U);
  CHECK(there == message);
}

TEST(verbs_what_is_half_made_is_freed_in_order) {
  constexpr int kMade = 6;  // context, domain, channel, queue, region, queue pair
  for (int n = 0; n < kMade; ++n) {
    fake().fail_after = n;
    Ends controls = tcp_pair(1, Waiting::kBlock);
    CHECK_FAULT(verbs_over(std::move(controls.first), spec(), Waiting::kSpin, Watch(kSecond)),
                Fault::kDevice);
    nothing_is_left();
  }
  fake().fail_after = -1;
}

TEST(verbs_a_peer_that_tells_of_too_few_lanes_is_refused) {
  fake();
  Ends controls = tcp_pair(1, Waiting::kBlock);
  together(
      [&] {
        CHECK_FAULT(
            verbs_over(std::move(controls.first), spec(), Waiting::kSpin, Watch(2 * kSecond)),
            Fault::kDisagreed);
      },
      [&] {
        constexpr std::size_t kRecord = 46;  // of one lane
        constexpr std::size_t kLanesAt = 10;
        constexpr std::size_t kLinkLayerAt = 15;
        swap(*controls.second, std::array{std::byte{1}, std::byte{0}});
        std::vector<std::byte> record(kRecord);
        std::memcpy(record.data(), "CWAIVERB\2", 9);
        record[kLanesAt] = std::byte{0};
        record[kLinkLayerAt] = std::byte{2};  // Ethernet, as the fake says
        const std::uint32_t crc = crc32c(record.data(), kRecord - 4);
        for (std::size_t i = 0; i < 4; ++i)
          record[kRecord - 4 + i] = static_cast<std::byte>(crc >> (8 * i));
        swap(*controls.second, record);
      });
  nothing_is_left();
}

TEST(verbs_a_gid_that_no_address_can_name_is_none) {
  fake().first_gid = 256;  // an address vector has one byte for the index
  Ends controls = tcp_pair(1, Waiting::kBlock);
  CHECK_FAULT(verbs_over(std::move(controls.first), spec(), Waiting::kSpin, Watch(kSecond)),
              Fault::kDevice);
  fake().first_gid = 0;
}

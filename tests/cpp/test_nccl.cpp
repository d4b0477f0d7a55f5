// The back end of NCCL on the fake libnccl and libcuda (fake_nccl.cpp, fake_cuda.cpp): everything
// but the hardware.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cards.hpp"
#include "collective/nccl.hpp"
#include "support/error.hpp"
#include "with_fake_cuda.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

NcclSpec spec(std::vector<int> cards) {
  fake_gpu();
  return {.library = CWAI_FAKE_NCCL_PATH, .cards = std::move(cards)};
}

// 12 types: 3 operations with 6 reductions and 4 others in both places, 3 out of place alone.
constexpr std::size_t kEverything = std::size_t{12} * (3 * 6 * 2 + 4 * 2 + 3);

void everything_of(const std::vector<int>& cards) {
  NobodyElse nobody;
  {
    const auto backend = nccl_backend(nobody, spec(cards), Watch(kLong));
    CHECK_EQUAL(backend->size(), static_cast<int>(cards.size()));
    CHECK_EQUAL(backend->library(), "NCCL 2.27.3 (stand-in)");
    CHECK_EQUAL(everything(*backend), kEverything);
    CHECK(!backend->broken());
  }
  no_gpu_is_in_use();
}

}  // namespace

TEST(nccl_every_operation_of_one_card_is_right) { everything_of({0}); }
TEST(nccl_every_operation_of_two_cards_is_right) { everything_of({0, 1}); }
TEST(nccl_every_operation_of_three_cards_is_right) { everything_of({2, 0, 1}); }

TEST(nccl_processes_with_unequal_numbers_of_cards_are_one_group) {
  const auto side = [](std::vector<int> cards, std::vector<int> ranks) -> Side {
    return [cards = std::move(cards), ranks = std::move(ranks)](Meeting& meeting) {
      {
        NcclSpec mine = spec(cards);
        mine.registered = true;
        mine.collnet = 1;
        const auto backend = nccl_backend(meeting, mine, Watch(kLong));
        CHECK_EQUAL(backend->size(), 3);
        CHECK(std::equal(ranks.begin(), ranks.end(), backend->members().begin(),
                         backend->members().end()));
        CHECK_EQUAL(everything(*backend), kEverything);
      }
      no_gpu_is_in_use();
    };
  };
  CHECK_EQUAL(in_two_processes(side({0}, {0}), side({1, 2}, {1, 2})), 0);
}

TEST(nccl_old_library_does_what_it_can) {
  NcclSpec old = spec({0, 1});
  old.library = CWAI_FAKE_NCCL_OLD_PATH;
  NobodyElse nobody;
  {
    const auto backend = nccl_backend(nobody, old, Watch(kLong));
    CHECK_EQUAL(backend->library(), "NCCL 2.8.4 (stand-in)");
    const auto can = [&](Element element, Reduction reduction) {
      return backend->can(Operation::kAllReduce, element, reduction, false);
    };
    CHECK(can(Element::kFloat16, Reduction::kSum));
    CHECK(!can(Element::kBfloat16, Reduction::kSum));
    CHECK(!can(Element::kFloat8E4M3, Reduction::kSum));
    CHECK(!can(Element::kFloat32, Reduction::kAvg));
    CHECK(!can(Element::kFloat32, Reduction::kPreMulSum));
    CHECK_EQUAL(everything(*backend), 9U * (3 * 4 * 2 + 4 * 2 + 3));
    CHECK(!backend->capture({}));
  }
  old.registered = true;
  CHECK(contains(said([&] { nccl_backend(nobody, old, Watch(kLong)); }),
                 "unsupported | NCCL 2.8.4 (stand-in) | registered"));
  old.registered = false;
  old.collnet = 0;
  CHECK(contains(said([&] { nccl_backend(nobody, old, Watch(kLong)); }), "collnet"));
  no_gpu_is_in_use();
}

TEST(nccl_eight_bits_are_reduced_by_new_cards_alone) {
  const Asked asked("CWAI_FAKE_GPU_MAJOR", "8");
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0}), Watch(kLong));
  const auto can = [&](Operation operation) {
    return backend->can(operation, Element::kFloat8E5M2, Reduction::kSum, false);
  };
  CHECK(!can(Operation::kAllReduce));
  CHECK(can(Operation::kSendRecv));
}

TEST(nccl_wrong_data_is_found_where_it_is) {
  const Asked asked("CWAI_FAKE_NCCL", "wrong=1@77");
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0, 1, 2}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  for (const Operation operation :
       {Operation::kAllReduce, Operation::kAllGather, Operation::kAllToAll, Operation::kSendRecv}) {
    const PointResult result = sweep.measure(point(operation), Watch(kLong));
    for (std::size_t member = 0; member < 3; ++member) {
      CHECK_EQUAL(result.found[member].wrong, member == 1 ? 1U : 0U);
      CHECK_EQUAL(result.found[member].first_bad, member == 1 ? 77 : -1);
    }
  }
}

TEST(nccl_times_come_from_the_cards) {
  const Asked asked("CWAI_FAKE_NCCL", "late=0@20000");
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0, 1}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  PointSpec one = point();
  one.iterations = 5;
  one.isolated = one.pipelined = one.graph = true;
  const PointResult result = sweep.measure(one, Watch(kLong));
  CHECK_EQUAL(result.device.size(), 2U);
  for (auto member : result.device) {
    CHECK_EQUAL(member.size(), 5U);
    std::sort(member.begin(), member.end());
    // A card that began late itself, on a busy machine, waited less than the other was late.
    CHECK(member[2] > 10e-3 && member[2] < 1);
  }
  for (const double time : result.device.front()) CHECK(time > 20e-3);
  CHECK(result.pipelined > 20e-3);
  CHECK(result.graphed > 20e-3);
  CHECK(backend->marked().empty());
}

// Its start mark comes late, so of all it has the shortest time in the operation.
TEST(nccl_card_that_wakes_up_late_waits_least) {
  const auto side = [](bool late) -> Side {
    return [late](Meeting& meeting) {
      if (late) setenv("CWAI_FAKE_GPU_LATE", "20000", 1);
      const auto backend = nccl_backend(meeting, spec({0}), Watch(kLong));
      Sweep sweep(meeting, *backend, 8192);
      PointSpec one = point();
      one.iterations = 5;
      one.isolated = true;
      const PointResult result = sweep.measure(one, Watch(kLong));
      unsetenv("CWAI_FAKE_GPU_LATE");
      std::vector<double> lateness = result.lateness.front();
      std::sort(lateness.begin(), lateness.end());
      const double usual = lateness[lateness.size() / 2];
      CHECK(late ? usual > 12e-3 : usual < 8e-3);
    };
  };
  CHECK_EQUAL(in_two_processes(side(false), side(true)), 0);
}

TEST(nccl_graph_does_what_was_recorded) {
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0, 1}), Watch(kLong));
  const auto& buffers = backend->buffers(4096);
  const std::vector<std::byte> ones(4096, std::byte{1});
  for (std::size_t member = 0; member < 2; ++member)
    backend->write(member, buffers.send[member], ones);
  const std::vector<const std::byte*> send(buffers.send.begin(), buffers.send.end());
  const Call call{Operation::kAllReduce,
                  Element::kUint8,
                  Reduction::kSum,
                  0,
                  4096,
                  false,
                  send,
                  buffers.receive,
                  {}};
  const auto received = [&] {
    std::vector<std::byte> out(4096);
    backend->read(1, out, buffers.receive[1]);
    return std::pair(out.front(), out.back());
  };
  const std::pair both_zero{std::byte{0}, std::byte{0}}, both_two{std::byte{2}, std::byte{2}};
  CHECK(backend->capture(std::vector<Call>(3, call)));
  backend->complete(Watch(kSecond));
  CHECK(received() == both_zero);
  for (int i = 0; i < 2; ++i) {
    for (std::size_t member = 0; member < 2; ++member)
      backend->fill(member, buffers.receive[member], 0, 4096);
    backend->replay();
    backend->complete(Watch(5 * kSecond));
    CHECK(received() == both_two);
  }
}

TEST(nccl_member_that_hangs_is_left_at_the_deadline) {
  const Asked asked("CWAI_FAKE_NCCL", "hang=1@3");
  NobodyElse nobody;
  {
    const auto backend = nccl_backend(nobody, spec({0, 1}), Watch(kLong));
    Sweep sweep(nobody, *backend, 8192);
    sweep.measure(point(Operation::kAllGather), Watch(kLong));
    sweep.measure(point(Operation::kSendRecv), Watch(kLong));
    const Nanos start = now();
    CHECK(contains(said([&] { sweep.measure(point(), Watch(kSecond / 2)); }),
                   "deadline | all_reduce"));
    CHECK(now() - start >= kSecond / 2 && now() - start < 5 * kSecond);
    CHECK(backend->broken());
  }
  no_gpu_is_in_use();
}

TEST(nccl_stop_is_heeded_after_a_grace) {
  const Asked asked("CWAI_FAKE_NCCL", "hang=0@1");
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0, 1}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  std::thread stops([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    request_stop();
  });
  const Nanos start = now();
  CHECK_FAULT(sweep.measure(point(), Watch(kLong)), Fault::kStopped);
  stops.join();
  clear_stop();
  CHECK(now() - start >= 2 * kSecond && now() - start < 8 * kSecond);
  CHECK(backend->broken());
}

TEST(nccl_asynchronous_error_is_told_in_its_words) {
  const Asked asked("CWAI_FAKE_NCCL", "error=1@1");
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0, 1}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  const std::string words = said([&] { sweep.measure(point(), Watch(kLong)); });
  CHECK(contains(words,
                 "collective | all_reduce | remote process exited or there was a network "
                 "error: NET/IB: Got completion from peer with status="));
  CHECK(backend->broken());
}

TEST(nccl_pointer_of_the_host_is_refused) {
  NobodyElse nobody;
  const auto backend = nccl_backend(nobody, spec({0}), Watch(kLong));
  std::array<std::byte, 64> mine{};
  const std::array<const std::byte*, 1> send{mine.data()};
  const std::array<std::byte*, 1> receive{mine.data()};
  const std::string words = said([&] {
    backend->post(
        {Operation::kAllReduce, Element::kInt8, Reduction::kSum, 0, 64, true, send, receive, {}});
  });
  CHECK(contains(words, "not a valid device pointer"));
  CHECK(backend->broken());
}

TEST(nccl_process_that_is_killed_is_left_at_the_deadline) {
  const Asked asked("CWAI_FAKE_NCCL", "crash=1@1");
  const Side side = [](Meeting& meeting) {
    const auto backend = nccl_backend(meeting, spec({0}), Watch(kLong));
    Sweep sweep(meeting, *backend, 8192);
    const std::string words = said([&] { sweep.measure(point(), Watch(kSecond)); });
    CHECK(contains(words, "deadline | all_reduce"));
    CHECK(backend->broken());
  };
  const int status = in_two_processes(side, side);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(nccl_versions_that_differ_are_told_before_the_start) {
  const auto side = [](const char* version) -> Side {
    return [version](Meeting& meeting) {
      const Asked asked("CWAI_FAKE_NCCL_VERSION", version);
      CHECK_EQUAL(said([&] { nccl_backend(meeting, spec({0}), Watch(kLong)); }),
                  "mixed | NCCL | 2.27.3, 2.28.9");
    };
  };
  CHECK_EQUAL(in_two_processes(side("22809"), side("22703")), 0);
}

namespace {

Side failing(const char* library, const char* expected) {
  return [library, expected](Meeting& meeting) {
    NcclSpec mine = spec({0});
    mine.library = library;
    CHECK(contains(said([&] { nccl_backend(meeting, mine, Watch(kLong)); }), expected));
  };
}

}  // namespace

TEST(nccl_process_without_a_library_takes_the_others_along) {
  CHECK_EQUAL(in_two_processes(failing(CWAI_FAKE_NCCL_PATH, "another process could not start it"),
                               failing("libnccl.nowhere.so", "library | libnccl.nowhere.so | ")),
              0);
}

TEST(nccl_process_that_the_library_refuses_to_start_takes_the_others_along) {
  const Asked refused("CWAI_FAKE_NCCL", "refuse=1");
  CHECK_EQUAL(in_two_processes(failing(CWAI_FAKE_NCCL_PATH, "Connection closed by remote peer"),
                               failing(CWAI_FAKE_NCCL_PATH,
                                       "collective | ncclCommInitRankConfig | unhandled "
                                       "system error (run with NCCL_DEBUG=INFO for "
                                       "details): socketStartConnect")),
              0);
}

TEST(nccl_start_that_one_member_misses_ends_at_the_deadline) {
  const Asked asked("CWAI_FAKE_NCCL", "absent=1");
  const Side side = [](Meeting& meeting) {
    const Nanos start = now();
    CHECK_FAULT(nccl_backend(meeting, spec({0}), Watch(kSecond / 2)), Fault::kDeadline);
    CHECK(now() - start < 3 * kSecond);
    // The threads that were left come back once nobody is missed any more.
    unsetenv("CWAI_FAKE_NCCL");
    while (fake_gpu().contexts > 0 && now() - start < 10 * kSecond) usleep(1000);
    no_gpu_is_in_use();
    meeting.barrier();
  };
  CHECK_EQUAL(in_two_processes(side, side), 0);
}

TEST(nccl_spec_that_cannot_be_is_refused) {
  NobodyElse nobody;
  CHECK_FAULT(nccl_backend(nobody, spec({}), Watch(kLong)), Fault::kInvalid);
  CHECK_FAULT(nccl_backend(nobody, spec({99}), Watch(kLong)), Fault::kDevice);
  no_gpu_is_in_use();
}

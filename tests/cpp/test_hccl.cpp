// The back end of HCCL on the fake libhccl and libascendcl (fake_hccl.cpp, fake_ascendcl.cpp):
// everything but the hardware.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "cards.hpp"
#include "collective/hccl.hpp"
#include "device/ascend.hpp"
#include "fake_ascend.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

// That of the process: the first that was opened stays.
FakeAscend& in_use() {
  Npu::open(CWAI_FAKE_HCCL_PATH);
  static void* const library = dlopen("libascendcl.so", RTLD_NOW | RTLD_NOLOAD);
  CHECK(library != nullptr);
  static auto* const get = reinterpret_cast<FakeAscend* (*)()>(dlsym(library, "fake_ascend"));
  return *get();
}

void no_npu_is_in_use() {
  CHECK_EQUAL(in_use().allocated.load(), 0);
  CHECK_EQUAL(in_use().made.load(), 0);
}

HcclSpec spec(std::vector<int> cards) {
  return {.library = CWAI_FAKE_HCCL_PATH, .cards = std::move(cards)};
}

// Of a 910B. all_reduce and reduce in both places, reduce_scatter in one: seven types by sum, max
// and min, and five by a product. The rest carries 12 types: broadcast in both places, all_gather,
// alltoall, alltoallv and scatter in one; and sendrecv where there are two.
constexpr std::size_t kReducing = std::size_t{5} * (7 * 3 + 5),
                      kCarrying = std::size_t{12} * (2 + 4);

void everything_of(const std::vector<int>& cards) {
  NobodyElse nobody;
  {
    const auto backend = hccl_backend(nobody, spec(cards), Watch(kLong));
    CHECK_EQUAL(backend->size(), static_cast<int>(cards.size()));
    CHECK_EQUAL(backend->library(), "HCCL (stand-in)");
    CHECK_EQUAL(everything(*backend), kReducing + kCarrying + (cards.size() > 1 ? 12 : 0));
    CHECK(!backend->broken());
    CHECK(!backend->capture({}));
  }
  no_npu_is_in_use();
}

Side failing(const char* library, const char* expected) {
  return [library, expected](Meeting& meeting) {
    HcclSpec mine = spec({meeting.rank()});
    mine.library = library;
    CHECK_EQUAL(contains(said([&] { hccl_backend(meeting, mine, Watch(kLong)); }), expected), true);
  };
}

}  // namespace

TEST(hccl_every_operation_of_one_card_is_right) { everything_of({0}); }
TEST(hccl_every_operation_of_two_cards_is_right) { everything_of({0, 1}); }
TEST(hccl_every_operation_of_three_cards_is_right) { everything_of({2, 0, 1}); }

TEST(hccl_processes_with_unequal_numbers_of_cards_are_one_group) {
  const auto side = [](std::vector<int> cards, std::vector<int> ranks) -> Side {
    return [cards = std::move(cards), ranks = std::move(ranks)](Meeting& meeting) {
      {
        const auto backend = hccl_backend(meeting, spec(cards), Watch(kLong));
        CHECK_EQUAL(backend->size(), 3);
        CHECK(std::equal(ranks.begin(), ranks.end(), backend->members().begin(),
                         backend->members().end()));
        CHECK_EQUAL(everything(*backend), kReducing + kCarrying + 12);
      }
      no_npu_is_in_use();
    };
  };
  CHECK_EQUAL(in_two_processes(side({0}, {0}), side({1, 2}, {1, 2})), 0);
}

TEST(hccl_old_toolkit_sends_and_receives_one_after_the_other) {
  HcclSpec old = spec({0, 1, 2});
  old.library = CWAI_FAKE_HCCL_OLD_PATH;
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, old, Watch(kLong));
  CHECK_EQUAL(everything(*backend), kReducing + kCarrying + 12);
}

TEST(hccl_cannot_do_what_the_manual_does_not_have) {
  const auto can = [](const char* soc, Operation operation, Element element,
                      Reduction reduction = Reduction::kSum) {
    const Asked asked("CWAI_FAKE_SOC", soc);
    NobodyElse nobody;
    return hccl_backend(nobody, spec({0, 1}), Watch(kLong))
        ->can(operation, element, reduction, false);
  };
  const Operation sum = Operation::kAllReduce, carry = Operation::kAllGather;
  CHECK(can("Ascend910B3", sum, Element::kBfloat16));
  CHECK(can("Ascend910_9391", sum, Element::kBfloat16));
  CHECK(!can("Ascend910B3", sum, Element::kBfloat16, Reduction::kProd));
  CHECK(!can("Ascend910B3", sum, Element::kFloat32, Reduction::kAvg));
  CHECK(!can("Ascend910B3", sum, Element::kFloat32, Reduction::kPreMulSum));
  CHECK(!can("Ascend910B3", sum, Element::kFloat64));
  CHECK(!can("Ascend910B3", carry, Element::kFloat8E4M3));
  CHECK(!can("Ascend910B3", Operation::kGather, Element::kFloat32));
  CHECK(!can("Ascend910A", sum, Element::kBfloat16));
  CHECK(!can("Ascend910A", sum, Element::kInt16));
  CHECK(!can("Ascend910A", carry, Element::kBfloat16));
  CHECK(can("Ascend950PR", sum, Element::kFloat64));
  CHECK(can("Ascend950PR", carry, Element::kFloat8E4M3));
  CHECK(!can("Ascend950PR", sum, Element::kFloat8E4M3));
}

TEST(hccl_wrong_data_is_found_where_it_is) {
  const Asked asked("CWAI_FAKE_HCCL", "wrong=1@77");
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, spec({0, 1, 2}), Watch(kLong));
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

TEST(hccl_times_come_from_the_cards) {
  const Asked asked("CWAI_FAKE_HCCL", "late=0@3000");
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, spec({0, 1}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  PointSpec one = point();
  one.iterations = 5;
  one.isolated = one.pipelined = one.graph = true;
  const PointResult result = sweep.measure(one, Watch(kLong));
  CHECK_EQUAL(result.device.size(), 2U);
  for (const auto& member : result.device) {
    CHECK_EQUAL(member.size(), 5U);
    for (const double time : member) CHECK(time > 0 && time < 1);
  }
  // The other may begin later, and then waits less.
  for (const double time : result.device[0]) CHECK(time > 3e-3);
  CHECK(result.pipelined > 3e-3);
  CHECK_EQUAL(result.graphed, 0);
  CHECK(backend->marked().empty());
}

TEST(hccl_member_that_hangs_is_left_at_the_deadline) {
  const Asked asked("CWAI_FAKE_HCCL", "hang=1@5");
  NobodyElse nobody;
  {
    const auto backend = hccl_backend(nobody, spec({0, 1}), Watch(kLong));
    Sweep sweep(nobody, *backend, 8192);
    sweep.measure(point(Operation::kAllGather), Watch(kLong));
    sweep.measure(point(Operation::kSendRecv), Watch(kLong));
    PointSpec several = point();  // which stand in the stream behind the one that hangs
    several.pipelined = true;
    several.iterations = 5;
    const Nanos start = now();
    CHECK(contains(said([&] { sweep.measure(several, Watch(kSecond / 2)); }),
                   "deadline | all_reduce"));
    CHECK(now() - start >= kSecond / 2 && now() - start < 3 * kSecond);
    CHECK(backend->broken());
  }
  no_npu_is_in_use();
}

TEST(hccl_what_hangs_on_an_old_toolkit_is_left_as_it_is) {
  const Asked asked("CWAI_FAKE_HCCL", "hang=1@1");
  HcclSpec old = spec({0, 1});
  old.library = CWAI_FAKE_HCCL_OLD_PATH;
  NobodyElse nobody;
  const Nanos start = now();
  {
    const auto backend = hccl_backend(nobody, old, Watch(kLong));
    Sweep sweep(nobody, *backend, 8192);
    CHECK_FAULT(sweep.measure(point(), Watch(kSecond / 2)), Fault::kDeadline);
    CHECK(backend->broken());
  }
  CHECK(now() - start < 5 * kSecond);
}

TEST(hccl_stop_is_heeded_after_a_grace) {
  const Asked asked("CWAI_FAKE_HCCL", "hang=0@1");
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, spec({0, 1}), Watch(kLong));
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

TEST(hccl_asynchronous_error_is_told_in_its_words) {
  const Asked asked("CWAI_FAKE_HCCL", "error=1@1");
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, spec({0, 1}), Watch(kLong));
  Sweep sweep(nobody, *backend, 8192);
  CHECK_EQUAL(said([&] { sweep.measure(point(), Watch(kLong)); }),
              "collective | all_reduce | error cqe status, or remote error");
  CHECK(backend->broken());
}

TEST(hccl_pointer_of_the_host_is_refused) {
  NobodyElse nobody;
  const auto backend = hccl_backend(nobody, spec({0}), Watch(kLong));
  std::array<std::byte, 64> mine{};
  const std::array<const std::byte*, 1> send{mine.data()};
  const std::array<std::byte*, 1> receive{mine.data()};
  const std::string words = said([&] {
    backend->post(
        {Operation::kAllReduce, Element::kInt8, Reduction::kSum, 0, 64, true, send, receive, {}});
  });
  CHECK_EQUAL(
      words, "collective | HcclAllReduce | parameter error: EI0003: a buffer is not on the device");
  CHECK(backend->broken());
}

TEST(hccl_process_that_is_killed_is_left_at_the_deadline) {
  const Asked asked("CWAI_FAKE_HCCL", "crash=1@1");
  const Side side = [](Meeting& meeting) {
    const auto backend = hccl_backend(meeting, spec({meeting.rank()}), Watch(kLong));
    Sweep sweep(meeting, *backend, 8192);
    CHECK(contains(said([&] { sweep.measure(point(), Watch(kSecond)); }), "deadline | all_reduce"));
    CHECK(backend->broken());
  };
  const int status = in_two_processes(side, side);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(hccl_process_that_cannot_start_takes_the_others_along) {
  CHECK_EQUAL(in_two_processes(failing(CWAI_FAKE_HCCL_PATH, "another process could not start it"),
                               failing("libhccl.nowhere.so", "library | libhccl.nowhere.so | ")),
              0);
}

TEST(hccl_refusal_of_one_process_is_told_by_all_in_their_words) {
  const Asked refused("CWAI_FAKE_HCCL", "refuse=1");
  CHECK_EQUAL(
      in_two_processes(
          failing(CWAI_FAKE_HCCL_PATH,
                  "collective | HcclCommInitRootInfo | timeout: EI0015: not all ranks have come"),
          failing(CWAI_FAKE_HCCL_PATH, "EI0015: this rank does not want to")),
      0);
}

TEST(hccl_start_that_one_member_misses_ends_at_the_deadline) {
  const Asked asked("CWAI_FAKE_HCCL", "absent=1");
  const Side side = [](Meeting& meeting) {
    const Nanos start = now();
    CHECK_FAULT(hccl_backend(meeting, spec({meeting.rank()}), Watch(kSecond / 2)),
                Fault::kDeadline);
    CHECK(now() - start < 3 * kSecond);
    meeting.barrier();
  };
  CHECK_EQUAL(in_two_processes(side, side), 0);
}

TEST(hccl_spec_that_cannot_be_is_refused) {
  NobodyElse nobody;
  CHECK_FAULT(hccl_backend(nobody, spec({}), Watch(kLong)), Fault::kInvalid);
  CHECK(contains(said([&] { hccl_backend(nobody, spec({99}), Watch(kLong)); }),
                 "device | NPU 99 | ACL error 107001: EE1001: there is no such device"));
  no_npu_is_in_use();
}

TEST(hccl_is_found_in_the_toolkit_that_the_environment_names) {
  const std::string path = CWAI_FAKE_HCCL_PATH;
  const Asked home("ASCEND_HOME_PATH", path.substr(0, path.find("/lib64/")));
  CHECK_EQUAL(hccl_path(""), path);
  CHECK_EQUAL(Npu::count(), 8);
  CHECK_EQUAL(Npu::name(), "Ascend910B3");
}

TEST(hccl_machine_without_a_driver_has_no_npus) {
  const Asked none("CWAI_FAKE_NPUS", "0");
  Npu::open(CWAI_FAKE_HCCL_PATH);
  CHECK_EQUAL(Npu::count(), 0);
}

#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runner.hpp"
#include "support/buffer.hpp"
#include "support/clock.hpp"
#include "support/cpu_pin.hpp"
#include "support/crc32c.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"
#include "support/interfaces.hpp"
#include "support/pattern.hpp"
#include "support/poll.hpp"
#include "support/progress.hpp"
#include "support/stop.hpp"
#include "transport/backends.hpp"

using namespace cwai;

TEST(clock_moves_on_and_is_fine_enough) {
  const Nanos before = now();
  const ClockQuality quality = measure_clock();
  CHECK(now() > before);
  CHECK(quality.resolution > 0);
  CHECK(quality.resolution < 1'000'000);
  CHECK(quality.overhead > 0);
}

// RFC 3720, appendix B.4: the CRCs of its example messages.
TEST(crc32c_knows_the_examples_of_the_standard) {
  const std::vector<unsigned char> zeros(32, 0x00);
  const std::vector<unsigned char> ones(32, 0xFF);
  std::vector<unsigned char> rising(32);
  for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<unsigned char>(i);
  CHECK_EQUAL(crc32c(zeros.data(), zeros.size()), 0x8A9136AAU);
  CHECK_EQUAL(crc32c(ones.data(), ones.size()), 0x62A8AB43U);
  CHECK_EQUAL(crc32c(rising.data(), rising.size()), 0x46DD794EU);
  CHECK_EQUAL(crc32c_portable(rising.data(), rising.size()), 0x46DD794EU);
}

TEST(crc32c_is_the_same_by_cpu_and_by_table) {
  Buffer buffer(1000);
  fill_pattern(buffer.data(), buffer.size(), 3);
  for (std::size_t size = 0; size < 70; ++size)
    for (std::size_t start = 0; start < 9; ++start)
      CHECK_EQUAL(crc32c(buffer.data() + start, size),
                  crc32c_portable(buffer.data() + start, size));
  const std::uint32_t whole = crc32c(buffer.data(), 1000);
  CHECK_EQUAL(crc32c(buffer.data() + 333, 667, crc32c(buffer.data(), 333)), whole);
}

TEST(crc32c_of_what_is_done_in_three_pieces_is_the_same_by_table) {
  Buffer buffer(40'000);
  fill_pattern(buffer.data(), buffer.size(), 5);
  for (const std::size_t size : {6143U, 6144U, 6145U, 6152U, 12'287U, 12'288U, 20'001U, 39'991U})
    for (const std::size_t start : {0U, 1U, 8U})
      for (const std::uint32_t seed : {0U, 1U, 0xFFFFFFFFU, 0x9E3779B9U})
        CHECK_EQUAL(crc32c(buffer.data() + start, size, seed),
                    crc32c_portable(buffer.data() + start, size, seed));
}

TEST(pattern_finds_every_wrong_byte) {
  for (const std::size_t size : {1U, 7U, 8U, 9U, 4097U}) {
    Buffer buffer(size);
    fill_pattern(buffer.data(), size, 42);
    CHECK_EQUAL(check_pattern(buffer.data(), size, 42).wrong, 0U);
    CHECK_EQUAL(check_pattern(buffer.data(), size, 42).first_bad, -1);
    CHECK(check_pattern(buffer.data(), size, 43).wrong > 0);
    for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
      buffer.data()[at] ^= std::byte{1};
      const Mismatch found = check_pattern(buffer.data(), size, 42);
      CHECK_EQUAL(found.wrong, 1U);
      CHECK_EQUAL(found.first_bad, static_cast<std::int64_t>(at));
      buffer.data()[at] ^= std::byte{1};
    }
  }
}

TEST(stop_and_deadline_end_a_watch) {
  const Watch patient(kSecond);
  patient.check();
  std::thread([] { request_stop(); }).join();
  CHECK_FAULT(patient.check(), Fault::kStopped);
  clear_stop();
  patient.check();
  const Watch over(0);
  CHECK_FAULT(over.check(), Fault::kDeadline);
  CHECK(patient.slice_end() <= now() + kSlice);
}

// How a wait for what never is done ended, and after how long.
std::pair<Fault, Nanos> never_done(const Watch& watch, const Waiting& waiting) {
  const Nanos start = now();
  try {
    poll_until([] { return false; }, watch, waiting);
  } catch (const Error& error) {
    CHECK_EQUAL(error.subject(), std::string(waiting.what));
    return {error.fault(), now() - start};
  }
  return {};
}

TEST(poll_until_asks_until_it_is_done) {
  int asked = 0;
  int looked = 0;
  poll_until([&] { return ++asked == 3; }, Watch(kSecond), {[&] { ++looked; }});
  CHECK_EQUAL(asked, 3);
  CHECK_EQUAL(looked, 0);  // it was too short for that
  poll_until([&] { return looked == 2; }, Watch(20 * kSecond), {[&] { ++looked; }});
  CHECK_EQUAL(looked, 2);
}

TEST(poll_until_ends_at_its_deadline_and_when_told_to_stop) {
  const auto [late, after] = never_done(Watch(20'000'000), {[] {}, "all_reduce"});
  CHECK(late == Fault::kDeadline);
  CHECK(after >= 20'000'000);
  request_stop();
  CHECK(never_done(Watch(20 * kSecond), {[] {}, "all_reduce"}).first == Fault::kStopped);
  const auto [stopped, grace] = never_done(Watch(20 * kSecond), {[] {}, "all_reduce", 30'000'000});
  CHECK(stopped == Fault::kStopped);
  CHECK(grace >= 30'000'000);
  clear_stop();
}

TEST(poll_until_lets_out_what_a_look_throws) {
  const auto look = [] { throw Error(Fault::kDevice, "all_reduce"); };
  CHECK(never_done(Watch(20 * kSecond), {look, "all_reduce"}).first == Fault::kDevice);
}

TEST(progress_shows_the_first_run_only) {
  CHECK_EQUAL(std::string(phase_name(progress().phase)), "idle");
  {
    ProgressOwner first("bandwidth", 64);
    ProgressOwner second("latency", 8);
    first.phase(Phase::kTimed);
    first.iteration(5);
    second.phase(Phase::kClose);
    second.iteration(77);
    CHECK_EQUAL(std::string(progress().what), "bandwidth");
    CHECK_EQUAL(std::string(phase_name(progress().phase)), "timed");
    CHECK_EQUAL(progress().size, 64U);
    CHECK_EQUAL(progress().iteration, 5U);
  }
  CHECK_EQUAL(std::string(phase_name(progress().phase)), "idle");
  const ProgressOwner next("latency", 8);
  CHECK_EQUAL(std::string(progress().what), "latency");
}

TEST(cpu_pin_holds_and_lets_go) {
  cpu_set_t before;
  CHECK_EQUAL(sched_getaffinity(0, sizeof before, &before), 0);
  int allowed = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(allowed), &before)) ++allowed;
  {
    const CpuPin pin(allowed);
    cpu_set_t during;
    sched_getaffinity(0, sizeof during, &during);
    CHECK_EQUAL(CPU_COUNT(&during), 1);
    CHECK_EQUAL(sched_getcpu(), allowed);
  }
  cpu_set_t after;
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&before, &after));
  CHECK_FAULT(CpuPin(CPU_SETSIZE - 1), Fault::kPinning);
  CHECK_FAULT(CpuPin(-2), Fault::kInvalid);
}

TEST(dynamic_library_names_what_is_missing) {
  CHECK_FAULT(DynamicLibrary::open("libno-such-thing.so.9"), Fault::kLibrary);
  CHECK_FAULT(DynamicLibrary::already_loaded("libno-such-thing.so.9"), Fault::kLibrary);
  const DynamicLibrary c = DynamicLibrary::already_loaded("libc.so.6");
  CHECK(c.has("getpid"));
  CHECK(!c.has("no_such_symbol"));
  CHECK(c.function<int()>("getpid")() > 0);
  CHECK_FAULT(c.function<int()>("no_such_symbol"), Fault::kLibrary);
  bool listed = false;
  for (const std::string& path : loaded_libraries())
    listed = listed || path.find("libc.so") != std::string::npos;
  CHECK(listed);
}

TEST(interfaces_include_the_loopback) {
  bool found = false;
  for (const InterfaceAddress& i : interface_addresses())
    found = found || (i.loopback && i.address == "127.0.0.1" && i.prefix == 8 && i.up && !i.v6);
  CHECK(found);
}

TEST(backends_tell_built_from_loadable_from_present) {
  for (const Backend& backend : backends({"/no/such/folder"})) {
    const bool ours = backend.name == "tcp" || backend.name == "loopback";
    if (ours) CHECK(backend.built && backend.loadable && backend.present);
    CHECK(backend.built);
    CHECK(backend.loadable == backend.loader.empty());
    if (!ours && backend.name != "mpi") CHECK_EQUAL(backend.present, !backend.devices.empty());
  }
}

TEST(every_fault_has_a_name_of_its_own) {
  const std::vector<std::string> names = fault_names();
  for (std::size_t i = 0; i < names.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) CHECK(names[i] != names[j]);
  CHECK_EQUAL(names.back(), std::string("collective"));
  const Error error(Fault::kConnect, "192.0.2.1:5", ECONNREFUSED);
  CHECK_EQUAL(std::string(error.what()), "connect: 192.0.2.1:5: Connection refused");
}

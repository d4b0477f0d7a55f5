// The multipath engine where nothing but itself costs time. One line of JSON for each repetition:
//   loopback  [ours, bare]: seconds of a transfer over eight paths of memory, and of a plain loop
//             that computes the CRC-32C of as many bytes and copies them
//   decision  [nanoseconds] of CPU time: of choosing what a path sends next, and hearing that it
//   was delivered stranded  [seconds]: from when two of four paths over the fake libibverbs went
//   silent until the
//             last of what they held had come another way
#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string_view>
#include <vector>

#include "several_paths.hpp"
#include "support/buffer.hpp"
#include "support/crc32c.hpp"
#include "support/pattern.hpp"

using namespace cwai_test;

namespace {

constexpr std::size_t kPaths = 8;
constexpr std::size_t kBytes = std::size_t{256} << 20;
constexpr std::size_t kPiece = 256 << 10;
constexpr int kPairs = 21;
constexpr int kSilences = 11;

Nanos cpu_time() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

double bare(const Buffer& source, Buffer& target) {
  const Nanos start = now();
  std::uint32_t all = 0;
  for (std::size_t at = 0; at < kBytes; at += kPiece) {
    all ^= crc32c(source.data() + at, kPiece);
    std::memcpy(target.data() + at, source.data() + at, kPiece);
  }
  const double took = seconds(now() - start);
  if (all == 1) std::printf("\n");  // it is used
  return took;
}

void loopback() {
  std::vector<std::unique_ptr<Connection>> first, second;
  for (std::size_t i = 0; i < kPaths; ++i) {
    Ends ends = memory_pair(1, Waiting::kSpin);
    first.push_back(std::move(ends.first));
    second.push_back(std::move(ends.second));
  }
  Buffer source(kBytes), target(kBytes), other(kBytes);
  fill_pattern(source.data(), kBytes, 1);
  const Watch watch(60 * kSecond);
  together(
      [&] {
        SenderSpec spec;
        spec.waiting = Waiting::kSpin;
        spec.scheduler.horizon = 500'000;
        Sender sender(spec, std::move(first), {});
        const auto ours = [&] {
          const std::uint64_t number = sender.post({source.data(), kBytes});
          Nanos begun = 0;
          while (!sender.done(number)) {
            sender.progress(watch.slice_end());
            watch.check();
            if (begun == 0) begun = sender.begun(number);
          }
          return seconds(now() - begun);
        };
        ours();
        for (int i = 0; i < kPairs; ++i) {
          const double mine = ours();
          std::printf("[%.6g, %.6g]\n", mine, bare(source, other));
        }
        sender.finish(watch);
      },
      [&] {
        Receiver receiver({.waiting = Waiting::kSpin}, std::move(second), {});
        for (int i = 0; i <= kPairs; ++i)
          receiver.wait(receiver.post({target.data(), kBytes}), watch);
        receiver.finish(watch);
      });
  if (check_pattern(target.data(), kBytes, 1).wrong != 0) throw Error(Fault::kGarbled, "target");
}

void decision() {
  constexpr int kRounds = 100'000;
  constexpr Nanos kStep = 1000;  // a run every so often
  for (int pair = 0; pair < kPairs; ++pair) {
    Scheduler scheduler({}, kPaths);
    for (std::size_t path = 0; path < kPaths; ++path) scheduler.open(path, 1);
    std::array<std::deque<Run>, kPaths> held;
    Nanos at = 1;
    scheduler.add(std::size_t{1} << 40);
    std::uint64_t decisions = 0;
    const Nanos begin = cpu_time();
    for (int round = 0; round < kRounds; ++round) {
      const std::size_t path = static_cast<std::size_t>(round) % kPaths;
      at += kStep;
      if (!held[path].empty()) {
        scheduler.deliver(path, held[path].front(), at);
        held[path].pop_front();
      }
      while (const auto run = scheduler.next(path, at)) {
        held[path].push_back(*run);
        ++decisions;
      }
    }
    const auto took = static_cast<double>(cpu_time() - begin);
    std::printf("[%.4g]\n", took / static_cast<double>(decisions));
  }
}

void stranded() {
  for (int repetition = 0; repetition < kSilences; ++repetition) {
    Paths paths(Paths::kVerbs, 4);
    for (auto& plant : paths.plants) plant->rate = 50e6;
    SenderSpec spec;  // as RDMA is driven: cwai_bench/native/multipath.py
    spec.scheduler.horizon = 2 * kMilli;
    spec.scheduler.stall = 5 * kMilli;
    spec.scheduler.duplicates = 0;
    Nanos silent = 0;
    const Seen seen = exchange(paths, spec, {20'000'000}, [&](const std::atomic<bool>&) {
      sleep_for(30 * kMilli);
      silent = now();
      fake().devices[0].silent = true;
    });
    fake().devices[0].silent = false;
    std::printf("[%.4g]\n", seconds(seen.recovered - silent));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "loopback") return loopback(), 0;
  if (argc == 2 && std::string_view(argv[1]) == "decision") return decision(), 0;
  if (argc == 2 && std::string_view(argv[1]) == "stranded") return stranded(), 0;
  return 2;
}

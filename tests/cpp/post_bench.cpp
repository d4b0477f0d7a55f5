// CPU time of a posted message of 64 bytes: our bandwidth loop, and a bare loop of post and poll,
// in turn, over the fake library, which carries nothing. One line for each pair: [ours, bare],
// seconds.
#include <array>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <thread>
#include <vector>

#include "ends.hpp"
#include "probe/rdma.hpp"
#include "with_fake_verbs.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

constexpr std::uint64_t kMessages = 20'000'000;
constexpr std::size_t kSize = 64;
constexpr std::size_t kDepth = 128;
constexpr std::size_t kList = 16;
constexpr int kPairs = 31;

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::pair<std::unique_ptr<QueuePairs>, std::unique_ptr<QueuePairs>> sides() {
  QueuePairsSpec spec;
  spec.path.device = "fake0";
  spec.post_list = kList;
  Ends controls = tcp_pair(1, Waiting::kBlock);
  const Watch watch(5 * kSecond);
  std::pair<std::unique_ptr<QueuePairs>, std::unique_ptr<QueuePairs>> made;
  together(
      [&] { made.first = std::make_unique<QueuePairs>(std::move(controls.first), spec, watch); },
      [&] { made.second = std::make_unique<QueuePairs>(std::move(controls.second), spec, watch); });
  return made;
}

double ours() {
  const auto both = sides();
  RdmaBandwidthSpec spec;
  spec.size = kSize;
  spec.duration = 0;
  spec.messages = kMessages;
  spec.verify = false;
  RdmaBandwidthSpec other = spec;
  spec.initiates = true;
  double taken = 0;
  RdmaBandwidthResult moved;
  const Watch watch(60 * kSecond);
  together(
      [&] {
        const double start = cpu_seconds();
        moved = measure_rdma_bandwidth(*both.first, spec, watch);
        taken = cpu_seconds() - start;
      },
      [&] { measure_rdma_bandwidth(*both.second, other, watch); });
  return taken / static_cast<double>(moved.messages + moved.warmup_messages);
}

double bare() {
  const auto both = sides();
  Memory memory(*both.first, 1, kSize);
  Joined joined(*both.first, 1, kDepth, 1, 0);
  std::array<verbs::SendWr, kList> chain;
  verbs::Sge place{.addr = memory.base(), .length = kSize, .lkey = memory.region().lkey};
  for (std::size_t i = 0; i < kList; ++i) {
    chain[i] = request_of(Verb::kWrite);
    chain[i].sg_list = &place;
    chain[i].next = i + 1 < kList ? &chain[i + 1] : nullptr;
  }
  chain[kList - 1].send_flags = verbs::kSendSignaled;
  std::array<verbs::Wc, 32> done;
  const double start = cpu_seconds();
  std::size_t in_flight = 0;
  for (std::uint64_t completed = 0; completed < kMessages;) {
    while (in_flight + kList <= kDepth) {
      joined.post(0, chain.data());
      in_flight += kList;
    }
    const std::size_t n = joined.sent(done);
    in_flight -= n * kList;
    completed += n * kList;
  }
  return (cpu_seconds() - start) / kMessages;
}

}  // namespace

int main() {
  fake().nowhere = true;
  fake().no_building = true;  // it would cost both the same, and hide what ours costs more
  // Locks cost less in a process of one thread: the bare loop has a second one as well, asleep.
  std::mutex held;
  held.lock();
  std::thread idle([&] { const std::lock_guard wait(held); });
  bare();
  ours();
  for (int i = 0; i < kPairs; ++i) {
    const double first = ours();
    std::printf("[%.4g, %.4g]\n", first, bare());
  }
  held.unlock();
  idle.join();
  return 0;
}

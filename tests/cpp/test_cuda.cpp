// GPUs through the fake driver (fake_cuda.cpp).
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "device/cuda.hpp"
#include "support/error.hpp"
#include "with_fake_cuda.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

std::vector<std::byte> held(const GpuMemory& memory) {
  std::vector<std::byte> out(memory.size());
  memory.gpu().read(out, memory.data());
  return out;
}

bool all_are(const std::vector<std::byte>& bytes, int value) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [value](std::byte b) { return b == static_cast<std::byte>(value); });
}

}  // namespace

TEST(cuda_gpus_are_found_by_number_and_by_address) {
  fake_gpu();
  CHECK_EQUAL(Gpu::count(), 8);
  {
    const Gpu second(1);
    CHECK_EQUAL(second.name(), "Stand-in GPU");
    CHECK_EQUAL(second.pci(), "0000:3b:00.0");
    CHECK_EQUAL(Gpu("0000:3b:00.0").ordinal(), 1);
    CHECK_EQUAL(second.attribute(GpuAttribute::kComputeMajor), 9);
    const auto again = std::make_unique<Gpu>(second);
    CHECK_EQUAL(fake_gpu().contexts.load(), 2);
  }
  CHECK_FAULT(Gpu(8), Fault::kDevice);
  CHECK_FAULT(Gpu("0000:3c:00.0"), Fault::kDevice);
  no_gpu_is_in_use();
}

TEST(cuda_memory_is_cleared_counted_and_given_back) {
  fake_gpu();
  {
    const Gpu gpu(0);
    const std::size_t free = gpu.memory().free;
    const GpuMemory memory(gpu, 1 << 20);
    CHECK_EQUAL(gpu.memory().free, free - (1 << 20));
    CHECK(all_are(held(memory), 0));
    gpu.fill(memory.data() + 100, 7, memory.size() - 100);
    gpu.write(memory.data(), std::vector<std::byte>(100, std::byte{7}));
    CHECK(all_are(held(memory), 7));
    CHECK_FAULT(GpuMemory(gpu, gpu.memory().total), Fault::kDevice);
  }
  no_gpu_is_in_use();
}

// The CPU's memory is none of a GPU's.
TEST(cuda_pointers_of_the_host_are_refused) {
  fake_gpu();
  const Gpu gpu(0);
  std::array<std::byte, 8> mine{};
  CHECK_FAULT(gpu.fill(mine.data(), 1, 8), Fault::kDevice);
  CHECK_FAULT(gpu.read(mine, mine.data()), Fault::kDevice);
}

TEST(cuda_what_is_queued_is_done_in_order_and_timed) {
  fake_gpu();
  {
    const Gpu gpu(0), other(1);
    const Stream stream(gpu), waits(other);
    const Event start(gpu), end(gpu);
    const PinnedMemory host(gpu, 1 << 20);
    const GpuMemory here(gpu, 1 << 20), there(other, 1 << 20);
    CHECK(gpu.reach(other));
    CHECK(gpu.reach(other));  // a second time is no error
    start.record(stream);
    for (int i = 0; i < 100; ++i) stream.fill(here.data(), static_cast<std::uint8_t>(i), 1 << 20);
    end.record(stream);
    waits.after(end);
    waits.copy(there.data(), here.data(), 1 << 20);
    waits.copy(host.data(), there.data(), 1 << 20);
    waits.wait(Watch(5 * kSecond));
    stream.wait(Watch(5 * kSecond));  // it may still be on its way back from the event
    CHECK(stream.done());
    CHECK(std::all_of(host.data(), host.data() + host.size(),
                      [](std::byte b) { return b == std::byte{99}; }));
    CHECK(end.since(start) > 0 && end.since(start) < 5);
    CHECK_FAULT(Event(gpu).since(start), Fault::kDevice);  // it never happened
  }
  no_gpu_is_in_use();
}

TEST(cuda_a_wait_ends_at_its_deadline) {
  fake_gpu();
  const Gpu gpu(0);
  const Stream stream(gpu), first(gpu);
  const GpuMemory memory(gpu, 256 << 20);
  const Event never(gpu);
  for (int i = 0; i < 8; ++i) first.fill(memory.data(), 1, memory.size());
  never.record(first);
  stream.after(never);
  CHECK_FAULT(stream.wait(Watch(20'000'000)), Fault::kDeadline);
  first.wait(Watch(20 * kSecond));
  stream.wait(Watch(5 * kSecond));
}

TEST(cuda_graphs_are_recorded_and_run_again) {
  fake_gpu();
  {
    const Gpu gpu(0);
    const Stream stream(gpu);
    const GpuMemory memory(gpu, 4096);
    CHECK(Graph::possible());
    Graph graph(stream);
    stream.fill(memory.data(), 3, 4096);
    graph.end();
    stream.wait(Watch(kSecond));
    CHECK(all_are(held(memory), 0));  // recorded, not done
    for (int i = 0; i < 2; ++i) {
      gpu.fill(memory.data(), 1, 4096);
      graph.launch();
      stream.wait(Watch(kSecond));
      CHECK(all_are(held(memory), 3));
    }
    // One that is left half-way leaves its stream usable.
    std::make_unique<Graph>(stream).reset();
    stream.fill(memory.data(), 5, 4096);
    stream.wait(Watch(kSecond));
    CHECK(all_are(held(memory), 5));
  }
  no_gpu_is_in_use();
}

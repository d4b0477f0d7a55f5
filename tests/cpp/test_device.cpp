// Copies, products and the search for corruption on GPUs of the fake libcuda and cuBLASLt
// (fake_cuda.cpp, fake_kernels.cpp, fake_cublaslt.cpp).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "device/copy.hpp"
#include "device/gemm.hpp"
#include "device/kernels.hpp"
#include "device/memory_check.hpp"
#include "fake_kernels.hpp"
#include "runner.hpp"
#include "support/dynamic_library.hpp"
#include "support/error.hpp"
#include "with_fake_cuda.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

constexpr std::array kPrecisionNames = {"fp64", "fp32", "tf32", "bf16", "fp16", "fp8"};

FakeKernels& kernels() {
  fake_gpu();
  static const DynamicLibrary library = DynamicLibrary::already_loaded("libcuda.so.1");
  return *library.function<FakeKernels*()>("fake_kernels")();
}

// A variable that the fake library reads, for one test: each is a process of its own.
void demand(const char* name, const char* value) { setenv(name, value, 1); }

cublaslt::Library library() {
  return cublaslt::Library({"libno_such_library.so", CWAI_FAKE_CUBLASLT});
}

TimingSpec brief(std::size_t samples = 3) {
  return {.duration = kSecond / 100, .least = samples, .most = 50};
}

CopySpec copies(std::size_t bytes) { return {.bytes = bytes, .timing = brief(), .seed = 7}; }

GemmSpec products(const char* precision, std::size_t size = 32) {
  return {.precision = precision_of(precision), .size = size, .seed = 3, .timing = brief()};
}

Watch patient() { return Watch(20 * kSecond); }

}  // namespace

TEST(device_the_programs_write_what_the_host_expects) {
  fake_gpu();
  const Gpu gpu(0);
  Kernels programs(gpu);
  const Stream stream(gpu);
  const GpuMemory memory(gpu, 4096);
  programs.fill(stream, memory.data(), 4096, {.seed = 5});
  stream.wait(patient());
  std::vector<std::byte> read(4096);
  gpu.read(read, memory.data());
  CHECK_EQUAL(check_pattern(read.data(), read.size(), 5).wrong, 0U);

  programs.check(stream, memory.data(), 4096, {.seed = 5});
  CHECK_EQUAL(programs.found(stream, patient()).wrong, 0U);
  programs.check(stream, memory.data(), 4096, {.seed = 5, .inverted = true});
  CHECK_EQUAL(programs.found(stream, patient()).wrong, 512U);
  // What was counted is told once.
  CHECK_EQUAL(programs.found(stream, patient()).wrong, 0U);
}

TEST(device_one_wrong_bit_is_found_where_it_is) {
  fake_gpu();
  const Gpu gpu(0);
  Kernels programs(gpu);
  const Stream stream(gpu);
  const GpuMemory one(gpu, 4096), other(gpu, 4096);
  for (const GpuMemory* memory : {&one, &other})
    programs.fill(stream, memory->data(), 4096, {.seed = 9});
  stream.wait(patient());
  constexpr std::size_t kBad = 8 * 400 + 3;
  std::byte bad{};
  gpu.read({&bad, 1}, other.data() + kBad);
  bad = bad ^ std::byte{0x20};
  gpu.write(other.data() + kBad, {&bad, 1});

  programs.compare(stream, one.data(), other.data(), 4096);
  Mismatch found = programs.found(stream, patient());
  CHECK_EQUAL(found.wrong, 1U);
  CHECK_EQUAL(found.first_bad, 400);
  programs.check(stream, other.data(), 4096, {.seed = 9});
  found = programs.found(stream, patient());
  CHECK_EQUAL(found.wrong, 1U);
  CHECK_EQUAL(found.first_bad, 400);
  CHECK_FAULT(programs.fill(stream, one.data(), 24, {.seed = 1}), Fault::kInvalid);
}

TEST(device_programs_that_find_nothing_are_not_believed) {
  kernels().blind = true;
  CHECK_FAULT(Kernels(Gpu(0)), Fault::kDevice);
  kernels().blind = false;
  const Kernels programs(Gpu(0));
}

TEST(device_copies_are_timed_and_verified) {
  fake_gpu();
  const Gpu gpu(0);
  for (const int streams : {1, 2, 3}) {
    const CopyResult found = measure_card_copy(gpu, streams, copies(1 << 20), patient());
    CHECK(found.samples.size() >= 3U);
    CHECK(
        std::all_of(found.samples.begin(), found.samples.end(), [](double s) { return s > 1e6; }));
    CHECK_EQUAL(found.found.wrong, 0U);
  }
  for (const Direction way : {Direction::kThere, Direction::kBack, Direction::kBoth}) {
    const CopyResult found = measure_host_copy(gpu, way, copies(1 << 20), patient());
    CHECK(found.samples.size() >= 3U);
    CHECK_EQUAL(found.found.wrong, 0U);
  }
  CHECK_FAULT(measure_card_copy(gpu, 1, copies(24), patient()), Fault::kInvalid);
  CHECK_FAULT(measure_card_copy(gpu, 0, copies(1024), patient()), Fault::kInvalid);
}

TEST(device_a_copy_of_wrong_data_is_told) {
  kernels().loses = 8000;
  const CopyResult found = measure_card_copy(Gpu(0), 2, copies(1 << 16), patient());
  CHECK_EQUAL(found.found.wrong, 1U);
  CHECK_EQUAL(found.found.first_bad, 1000);
  kernels().loses = 16000;
  const CopyResult back = measure_host_copy(Gpu(0), Direction::kBoth, copies(1 << 16), patient());
  CHECK_EQUAL(back.found.first_bad, 2000);
}

TEST(device_peers_copy_both_ways) {
  fake_gpu();
  const Gpu first(0), second(1);
  for (const Direction way : {Direction::kThere, Direction::kBoth}) {
    const PeerResult found = measure_peer_copy(first, second, way, copies(1 << 16), patient());
    CHECK(found.direct);
    CHECK(found.samples.size() >= 3U);
    CHECK_EQUAL(found.found.wrong, 0U);
  }
  CHECK_FAULT(measure_peer_copy(first, first, Direction::kThere, copies(1024), patient()),
              Fault::kInvalid);
}

TEST(device_products_of_every_precision_are_right) {
  fake_gpu();
  const cublaslt::Library lt = library();
  CHECK_EQUAL(lt.name(), "cuBLASLt 12.3.4 (stand-in)");
  for (const char* precision : kPrecisionNames) {
    const GemmResult speed = measure_gemm(Gpu(0), lt, products(precision), patient());
    CHECK(speed.supported);
    CHECK(speed.samples.size() >= 3U);
    // Of three proposals in each layout one cannot be used; fp8 has one layout. On a busy machine
    // there is no time for all.
    CHECK(speed.tried >= 1 && speed.tried <= (precision == std::string("fp8") ? 2U : 4U));
    // 272 rows are two tiles.
    const std::size_t size = precision == std::string("bf16") ? 272 : 64;
    const ComputeResult found = check_compute(Gpu(0), lt, products(precision, size), patient());
    CHECK(found.products >= 3U);
    CHECK_EQUAL(found.wrong, 0U);
    CHECK_EQUAL(found.beyond, 0U);
    CHECK_EQUAL(found.row, -1);
    const std::size_t tiles = size > 256 ? 4 : 1;
    CHECK_EQUAL(found.sampled, precision == std::string("fp8") ? 0U : tiles);
    // In fp64 the stand-in adds in the CPU's own order.
    CHECK(found.worst <= 1);
    CHECK_EQUAL(found.worst > 0,
                precision != std::string("fp8") && precision != std::string("fp64"));
  }
  CHECK_FAULT(measure_gemm(Gpu(0), lt, products("fp32", 24), patient()), Fault::kInvalid);
  CHECK_FAULT(products("fp4"), Fault::kInvalid);
  CHECK_FAULT(cublaslt::Library({"libno_such_library.so"}), Fault::kLibrary);
  const auto kept = [] { return &cublaslt::Library::kept({CWAI_FAKE_CUBLASLT}); };
  CHECK_EQUAL(kept(), kept());
}

TEST(device_a_product_that_differs_once_is_found_and_named) {
  fake_gpu();
  for (const char* precision : kPrecisionNames) {
    const cublaslt::Library lt = library();
    // Four algorithms, each tried four times at most, and the first product come before.
    lt.library.function<void(long)>("fake_cublaslt_wrong_after")(40);
    GemmSpec spec = products(precision);
    spec.timing.least = 60;
    spec.timing.most = 100;
    const ComputeResult found = check_compute(Gpu(0), lt, spec, patient());
    CHECK(found.wrong == 1U);
    CHECK_EQUAL(found.row, 16);
    CHECK_EQUAL(found.column, 16);
    CHECK(found.first != found.later);
    CHECK_EQUAL(found.beyond, 0U);
    // The last bit is less than what rounding explains: the CPU's own result is near both.
    CHECK(std::abs(found.exact - found.first) < 0.2 * std::abs(found.first) + 1);
  }
}

TEST(device_an_order_of_additions_that_changes_is_no_corruption) {
  fake_gpu();
  demand("CWAI_FAKE_CUBLASLT_SPLITS", "1");
  GemmSpec spec = products("fp32");
  spec.timing.least = 20;
  CHECK_EQUAL(check_compute(Gpu(0), library(), spec, patient()).wrong, 0U);
}

TEST(device_a_card_that_is_always_wrong_is_told_by_the_cpu) {
  fake_gpu();
  demand("CWAI_FAKE_CUBLASLT_BROKEN", "1");
  const ComputeResult found = check_compute(Gpu(0), library(), products("bf16"), patient());
  CHECK_EQUAL(found.wrong, 0U);
  CHECK_EQUAL(found.sampled, 1U);
  CHECK_EQUAL(found.beyond, 1U);
  CHECK(found.worst > 1);
  CHECK(found.row >= 0);
}

TEST(device_what_a_library_does_not_know_is_not_supported) {
  fake_gpu();
  demand("CWAI_FAKE_CUBLASLT_OLD", "1");
  CHECK(!measure_gemm(Gpu(0), library(), products("fp8"), patient()).supported);
  CHECK(!check_compute(Gpu(0), library(), products("fp8"), patient()).supported);
  CHECK(measure_gemm(Gpu(0), library(), products("fp16"), patient()).supported);
}

TEST(device_memory_that_keeps_everything_and_memory_that_does_not) {
  fake_gpu();
  const MemorySpec spec{.share = 1.0 / 1024, .passes = 4, .seed = 11};
  const MemoryResult good = check_memory(Gpu(0), spec, patient());
  CHECK_EQUAL(good.passes, 4);
  CHECK_EQUAL(good.wrong, 0U);
  CHECK_EQUAL(good.first_bad, -1);
  CHECK(good.bytes >= std::size_t{14} << 20);
  CHECK(good.slowest > 1e6);

  kernels().loses = (1 << 20) + 5;
  const MemoryResult bad = check_memory(Gpu(0), spec, patient());
  CHECK_EQUAL(bad.passes, 1);
  CHECK_EQUAL(bad.wrong, 1U);
  CHECK_EQUAL(bad.first_bad, 1 << 20);
  CHECK_EQUAL(bad.expected ^ bad.found, std::uint64_t{0x10} << 40);
  CHECK_FAULT(check_memory(Gpu(0), {.share = 1, .passes = 1, .seed = 1}, patient()),
              Fault::kInvalid);
  no_gpu_is_in_use();
}

TEST(device_without_memory_or_time_it_says_so_and_leaves_nothing) {
  const auto measure = [](Nanos patience) {
    return measure_gemm(Gpu(0), library(), products("fp64", 512), Watch(patience));
  };
  fake_gpu().full = true;
  CHECK_FAULT(measure_card_copy(Gpu(0), 1, copies(1024), patient()), Fault::kDevice);
  CHECK_FAULT(check_memory(Gpu(0), {.share = 0.5, .passes = 1, .seed = 1}, patient()),
              Fault::kDevice);
  fake_gpu().full = false;
  CHECK_FAULT(measure(1'000'000), Fault::kDeadline);
}

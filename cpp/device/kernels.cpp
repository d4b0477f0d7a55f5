#include "device/kernels.hpp"

#include <array>
#include <span>
#include <string>

#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocksPerMultiprocessor = 8;
// Two words of 8 bytes for each thread at a time: the widest that one instruction moves.
constexpr std::size_t kStep = 16;

// Each thread takes a pair of words, then the one that comes as many pairs later as there are
// threads.
constexpr const char* kPtx = R"(
.version 6.4
.target sm_50
.address_size 64

// mix() of support/pattern.hpp, with the bits of flip turned over.
.func (.reg .b64 word) expected(.reg .b64 seed, .reg .b64 flip) {
  .reg .b64 %t;
  add.u64 word, seed, 0x9E3779B97F4A7C15;
  shr.u64 %t, word, 30;
  xor.b64 word, word, %t;
  mul.lo.u64 word, word, 0xBF58476D1CE4E5B9;
  shr.u64 %t, word, 27;
  xor.b64 word, word, %t;
  mul.lo.u64 word, word, 0x94D049BB133111EB;
  shr.u64 %t, word, 31;
  xor.b64 word, word, %t;
  xor.b64 word, word, flip;
  ret;
}

// The first pair of this thread, and how far it is to the next.
.func (.reg .b64 pair) own() {
  .reg .b32 %block, %size, %at;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mov.u32 %at, %tid.x;
  mad.lo.u32 %at, %block, %size, %at;
  cvt.u64.u32 pair, %at;
  ret;
}
.func (.reg .b64 pairs) all() {
  .reg .b32 %blocks, %size;
  mov.u32 %blocks, %nctaid.x;
  mov.u32 %size, %ntid.x;
  mul.lo.u32 %blocks, %blocks, %size;
  cvt.u64.u32 pairs, %blocks;
  ret;
}

.func tell(.reg .b64 found, .reg .b64 wrong, .reg .b64 first) {
  .reg .pred %none;
  setp.eq.u64 %none, wrong, 0;
  @%none ret;
  red.global.add.u64 [found], wrong;
  red.global.min.u64 [found + 8], first;
  ret;
}

.visible .entry cwai_fill(.param .u64 data, .param .u64 pairs, .param .u64 seed,
                          .param .u64 flip) {
  .reg .pred %over;
  .reg .b64 %data, %pairs, %seed, %flip, %pair, %step, %at, %x, %y;
  ld.param.u64 %data, [data];
  ld.param.u64 %pairs, [pairs];
  ld.param.u64 %seed, [seed];
  ld.param.u64 %flip, [flip];
  cvta.to.global.u64 %data, %data;
  call (%pair), own;
  call (%step), all;
next:
  setp.ge.u64 %over, %pair, %pairs;
  @%over ret;
  shl.b64 %at, %pair, 4;
  add.u64 %x, %seed, %at;
  add.u64 %y, %x, 8;
  call (%x), expected, (%x, %flip);
  call (%y), expected, (%y, %flip);
  add.u64 %at, %data, %at;
  st.global.v2.u64 [%at], {%x, %y};
  add.u64 %pair, %pair, %step;
  bra next;
}

.visible .entry cwai_check(.param .u64 data, .param .u64 pairs, .param .u64 seed, .param .u64 flip,
                           .param .u64 found) {
  .reg .pred %over, %differ;
  .reg .b64 %data, %pairs, %seed, %flip, %found, %pair, %step, %at, %x, %y, %u, %v;
  .reg .b64 %index, %wrong, %first;
  ld.param.u64 %data, [data];
  ld.param.u64 %pairs, [pairs];
  ld.param.u64 %seed, [seed];
  ld.param.u64 %flip, [flip];
  ld.param.u64 %found, [found];
  cvta.to.global.u64 %data, %data;
  cvta.to.global.u64 %found, %found;
  mov.u64 %wrong, 0;
  mov.u64 %first, -1;
  call (%pair), own;
  call (%step), all;
next:
  setp.ge.u64 %over, %pair, %pairs;
  @%over bra done;
  shl.b64 %at, %pair, 4;
  add.u64 %x, %seed, %at;
  add.u64 %y, %x, 8;
  call (%x), expected, (%x, %flip);
  call (%y), expected, (%y, %flip);
  add.u64 %at, %data, %at;
  ld.global.v2.u64 {%u, %v}, [%at];
  shl.b64 %index, %pair, 1;
  setp.ne.u64 %differ, %x, %u;
  @%differ add.u64 %wrong, %wrong, 1;
  @%differ min.u64 %first, %first, %index;
  add.u64 %index, %index, 1;
  setp.ne.u64 %differ, %y, %v;
  @%differ add.u64 %wrong, %wrong, 1;
  @%differ min.u64 %first, %first, %index;
  add.u64 %pair, %pair, %step;
  bra next;
done:
  call tell, (%found, %wrong, %first);
  ret;
}

.visible .entry cwai_compare(.param .u64 data, .param .u64 pairs, .param .u64 other,
                             .param .u64 found) {
  .reg .pred %over, %differ;
  .reg .b64 %data, %pairs, %other, %found, %pair, %step, %at, %x, %y, %u, %v;
  .reg .b64 %index, %wrong, %first;
  ld.param.u64 %data, [data];
  ld.param.u64 %pairs, [pairs];
  ld.param.u64 %other, [other];
  ld.param.u64 %found, [found];
  cvta.to.global.u64 %data, %data;
  cvta.to.global.u64 %other, %other;
  cvta.to.global.u64 %found, %found;
  mov.u64 %wrong, 0;
  mov.u64 %first, -1;
  call (%pair), own;
  call (%step), all;
next:
  setp.ge.u64 %over, %pair, %pairs;
  @%over bra done;
  shl.b64 %at, %pair, 4;
  add.u64 %index, %data, %at;
  ld.global.v2.u64 {%x, %y}, [%index];
  add.u64 %index, %other, %at;
  ld.global.v2.u64 {%u, %v}, [%index];
  shl.b64 %index, %pair, 1;
  setp.ne.u64 %differ, %x, %u;
  @%differ add.u64 %wrong, %wrong, 1;
  @%differ min.u64 %first, %first, %index;
  add.u64 %index, %index, 1;
  setp.ne.u64 %differ, %y, %v;
  @%differ add.u64 %wrong, %wrong, 1;
  @%differ min.u64 %first, %first, %index;
  add.u64 %pair, %pair, %step;
  bra next;
done:
  call tell, (%found, %wrong, %first);
  ret;
}
)";

// Of libcuda, what only these programs need.
struct Loader {
  DynamicLibrary library = DynamicLibrary::open("libcuda.so.1");
  int (*load)(void**, const void*) = library.function<int(void**, const void*)>("cuModuleLoadData");
  int (*unload)(void*) = library.function<int(void*)>("cuModuleUnload");
  int (*find)(void**, void*, const char*) =
      library.function<int(void**, void*, const char*)>("cuModuleGetFunction");
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                void**, void**) =
      library.function<int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           unsigned, void*, void**, void**)>("cuLaunchKernel");
  int (*error_name)(int, const char**) = library.function<int(int, const char**)>("cuGetErrorName");

  static const Loader& get() {
    static const Loader loader;
    return loader;
  }
};

void must(int result, const std::string& what) {
  if (result == 0) return;
  const char* name = nullptr;
  Loader::get().error_name(result, &name);
  throw Error(Fault::kDevice, what, 0,
              name != nullptr ? name : "CUDA error " + std::to_string(result));
}

std::uint64_t address(const std::byte* data) noexcept {
  return reinterpret_cast<std::uint64_t>(data);
}

std::uint64_t pairs_of(std::size_t bytes) {
  if (bytes % kStep != 0) throw Error(Fault::kInvalid, "bytes=" + std::to_string(bytes));
  return bytes / kStep;
}

}  // namespace

Kernels::Kernels(const Gpu& gpu)
    : gpu_(gpu),
      found_(gpu, 2 * sizeof(std::uint64_t)),
      blocks_(static_cast<unsigned>(gpu.attribute(GpuAttribute::kMultiprocessors)) *
              kBlocksPerMultiprocessor) {
  const Loader& loader = Loader::get();
  const std::string what = "GPU " + gpu_.pci() + " programs";
  gpu_.enter();
  must(loader.load(&module_, kPtx), what);
  try {
    must(loader.find(&fill_, module_, "cwai_fill"), what);
    must(loader.find(&check_, module_, "cwai_check"), what);
    must(loader.find(&compare_, module_, "cwai_compare"), what);
    clear();
    prove();
  } catch (...) {
    loader.unload(module_);
    throw;
  }
}

Kernels::~Kernels() {
  gpu_.enter();
  Loader::get().unload(module_);
}

// A check that finds nothing is worth something only where it would find something.
void Kernels::prove() {
  constexpr std::size_t kBytes = 1024, kBad = 777;
  const Watch watch(10 * kSecond);
  const Stream stream(gpu_);
  const GpuMemory one(gpu_, kBytes), other(gpu_, kBytes);
  fill(stream, one.data(), kBytes, {1});
  fill(stream, other.data(), kBytes, {1});
  stream.wait(watch);
  std::byte bad{};
  gpu_.read({&bad, 1}, other.data() + kBad);
  bad ^= std::byte{1};
  gpu_.write(other.data() + kBad, {&bad, 1});
  const auto must_find = [&](std::uint64_t wrong) {
    const Mismatch told = found(stream, watch);
    if (told.wrong != wrong || (wrong != 0 && told.first_bad != kBad / 8))
      throw Error(Fault::kDevice, "GPU " + gpu_.pci() + " programs", 0,
                  "one wrong bit was planted, and not found as it should be");
  };
  check(stream, one.data(), kBytes, {1});
  must_find(0);
  check(stream, other.data(), kBytes, {1});
  must_find(1);
  compare(stream, one.data(), other.data(), kBytes);
  must_find(1);
}

void Kernels::clear() const {
  gpu_.fill(found_.data(), 0, sizeof(std::uint64_t));
  gpu_.fill(found_.data() + sizeof(std::uint64_t), 0xFF, sizeof(std::uint64_t));
}

void Kernels::launch(const Stream& stream, void* program, void** arguments) const {
  gpu_.enter();
  must(Loader::get().launch(program, blocks_, 1, 1, kThreads, 1, 1, 0, stream.handle(), arguments,
                            nullptr),
       "GPU " + gpu_.pci() + " program");
}

void Kernels::fill(const Stream& stream, std::byte* data, std::size_t bytes,
                   Pattern pattern) const {
  std::uint64_t at = address(data), pairs = pairs_of(bytes), seed = pattern.seed,
                flip = pattern.inverted ? ~std::uint64_t{0} : 0;
  std::array<void*, 4> arguments = {&at, &pairs, &seed, &flip};
  launch(stream, fill_, arguments.data());
}

void Kernels::check(const Stream& stream, const std::byte* data, std::size_t bytes,
                    Pattern pattern) const {
  std::uint64_t at = address(data), pairs = pairs_of(bytes), seed = pattern.seed,
                flip = pattern.inverted ? ~std::uint64_t{0} : 0, found = address(found_.data());
  std::array<void*, 5> arguments = {&at, &pairs, &seed, &flip, &found};
  launch(stream, check_, arguments.data());
}

void Kernels::compare(const Stream& stream, const std::byte* one, const std::byte* other,
                      std::size_t bytes) const {
  std::uint64_t at = address(one), pairs = pairs_of(bytes), against = address(other),
                found = address(found_.data());
  std::array<void*, 4> arguments = {&at, &pairs, &against, &found};
  launch(stream, compare_, arguments.data());
}

Mismatch Kernels::found(const Stream& stream, const Watch& watch) {
  stream.wait(watch);
  std::array<std::uint64_t, 2> counted{};
  gpu_.read(std::as_writable_bytes(std::span(counted)), found_.data());
  if (counted[0] == 0) return {};
  clear();
  return {counted[0], static_cast<std::int64_t>(counted[1])};
}

}  // namespace cwai

// The part of the fake libcuda (fake_cuda.cpp) that runs the programs of cpp/device/kernels.cpp. Of
// little memory their text is run, thread by thread (ptx.hpp); of more, which would take too long,
// the CPU does what they should.
//
// Environment:
//   CWAI_FAKE_GPU_LOSES=N     a bit of byte N turns over in the first fill that is large enough
#include "fake_kernels.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "ptx.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);

namespace {

constexpr int kNotFound = 500, kInvalidPtx = 218;
constexpr std::uint64_t kPairsByText = 256;  // each of 16 bytes

FakeKernels& state() {
  static FakeKernels state;
  static const bool asked = [] {
    if (const char* value = std::getenv("CWAI_FAKE_GPU_LOSES"))
      state.loses = std::strtoll(value, nullptr, 10);
    return true;
  }();
  static_cast<void>(asked);
  return state;
}

std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

using Arguments = std::vector<std::uint64_t>;

std::uint64_t* words(std::uint64_t address) { return reinterpret_cast<std::uint64_t*>(address); }

void fill(const Arguments& of) {
  for (std::uint64_t i = 0; i < 2 * of[1]; ++i) words(of[0])[i] = mix(of[2] + 8 * i) ^ of[3];
}

void count(std::uint64_t index, std::uint64_t* found) {
  ++found[0];
  if (index < found[1]) found[1] = index;
}

void check(const Arguments& of) {
  for (std::uint64_t i = 0; i < 2 * of[1]; ++i)
    if (words(of[0])[i] != (mix(of[2] + 8 * i) ^ of[3])) count(i, words(of[4]));
}

void compare(const Arguments& of) {
  for (std::uint64_t i = 0; i < 2 * of[1]; ++i)
    if (words(of[0])[i] != words(of[2])[i]) count(i, words(of[3]));
}

struct Program {
  const char* name;
  std::size_t arguments;
  void (*run)(const Arguments&);
};
const std::array<Program, 3> programs = {
    {{"cwai_fill", 4, &fill}, {"cwai_check", 5, &check}, {"cwai_compare", 4, &compare}}};

struct Module;
struct Function {
  const Program* program;
  Module* module;
};
// Launches hold on to it: they may outlast it.
struct Module : std::enable_shared_from_this<Module> {
  explicit Module(const char* image) : text(image) {
    for (std::size_t i = 0; i < programs.size(); ++i) functions[i] = {&programs[i], this};
  }
  cwai_test::Ptx text;
  std::array<Function, programs.size()> functions{};
};
using ModuleHandle = std::shared_ptr<Module>;

struct Launch {
  ModuleHandle module;
  const Program* program;
  Arguments arguments;
  std::uint32_t threads, blocks;

  void run() const {
    const std::uint64_t pairs = arguments[1];
    const bool fills = program->run == &fill;
    if (!fills && state().blind) return;
    if (pairs <= kPairsByText) {
      // Those that have a pair, and one block more that has none.
      const std::uint64_t all = std::uint64_t{threads} * blocks;
      for (std::uint64_t i = 0; i < std::min(all, pairs + threads); ++i)
        module->text.run(program->name, arguments,
                         {static_cast<std::uint32_t>(i % threads), threads,
                          static_cast<std::uint32_t>(i / threads), blocks});
    } else {
      program->run(arguments);
    }
    if (fills) lose(arguments[0], 16 * pairs);
  }

 private:
  static void lose(std::uint64_t data, std::uint64_t bytes) {
    std::int64_t lost = state().loses;
    if (lost >= 0 && static_cast<std::uint64_t>(lost) < bytes &&
        state().loses.compare_exchange_strong(lost, -1))
      reinterpret_cast<unsigned char*>(data)[lost] ^= 0x10;
  }
};

}  // namespace

EXPORTED FakeKernels* fake_kernels() { return &state(); }

EXPORTED int cuModuleLoadData(void** module, const void* image) {
  try {
    *module = new ModuleHandle(std::make_shared<Module>(static_cast<const char*>(image)));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return kInvalidPtx;
  }
}
EXPORTED int cuModuleUnload(void* module) {
  delete static_cast<ModuleHandle*>(module);
  return 0;
}
EXPORTED int cuModuleGetFunction(void** function, void* module, const char* name) {
  Module& of = **static_cast<ModuleHandle*>(module);
  for (Function& known : of.functions)
    if (std::strcmp(known.program->name, name) == 0 && of.text.has(name) &&
        of.text.parameters(name) == known.program->arguments) {
      *function = &known;
      return 0;
    }
  return kNotFound;
}
EXPORTED int cuLaunchKernel(void* function, unsigned blocks, unsigned, unsigned, unsigned threads,
                            unsigned, unsigned, unsigned, void* stream, void** parameters, void**) {
  auto launch = std::make_unique<Launch>();
  const auto& known = *static_cast<const Function*>(function);
  launch->module = known.module->shared_from_this();
  launch->program = known.program;
  launch->threads = threads;
  launch->blocks = blocks;
  for (std::size_t i = 0; i < known.program->arguments; ++i)
    launch->arguments.push_back(*static_cast<std::uint64_t*>(parameters[i]));
  return cuLaunchHostFunc(
      stream, [](void* data) { std::unique_ptr<Launch>(static_cast<Launch*>(data))->run(); },
      launch.release());
}

// The part of the fake libcuda (fake_cuda.cpp) that runs the programs of cpp/device/kernels.cpp: it
// knows them by name, does on the CPU what they do, and never reads their text.
//
// Environment:
//   CWAI_FAKE_GPU_LOSES=N     a bit of byte N turns over in the first fill that is large enough
#include "fake_kernels.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);

namespace {

constexpr int kNotFound = 500, kInvalidPtx = 218;

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
  std::int64_t lost = state().loses;
  if (lost >= 0 && static_cast<std::uint64_t>(lost) < 16 * of[1] &&
      state().loses.compare_exchange_strong(lost, -1))
    reinterpret_cast<unsigned char*>(of[0])[lost] ^= 0x10;
}

void count(std::uint64_t index, std::uint64_t* found) {
  if (state().blind) return;
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

struct Launch {
  const Program* program;
  Arguments arguments;
};

}  // namespace

EXPORTED FakeKernels* fake_kernels() { return &state(); }

EXPORTED int cuModuleLoadData(void** module, const void* image) {
  // A kind word to whoever breaks the text: that it is one, and has all the programs.
  const std::string text = static_cast<const char*>(image);
  for (const Program& program : programs)
    if (text.find(std::string(".entry ") + program.name + "(") == std::string::npos)
      return kInvalidPtx;
  *module = &state();
  return 0;
}
EXPORTED int cuModuleUnload(void*) { return 0; }
EXPORTED int cuModuleGetFunction(void** function, void*, const char* name) {
  for (const Program& program : programs)
    if (std::strcmp(program.name, name) == 0) {
      *function = const_cast<Program*>(&program);
      return 0;
    }
  return kNotFound;
}
EXPORTED int cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned,
                            unsigned, unsigned, void* stream, void** parameters, void**) {
  const auto* program = static_cast<const Program*>(function);
  auto launch = std::make_unique<Launch>();
  launch->program = program;
  for (std::size_t i = 0; i < program->arguments; ++i)
    launch->arguments.push_back(*static_cast<std::uint64_t*>(parameters[i]));
  return cuLaunchHostFunc(
      stream,
      [](void* data) {
        const std::unique_ptr<Launch> launch(static_cast<Launch*>(data));
        launch->program->run(launch->arguments);
      },
      launch.release());
}

// The fake libcuda (fake_cuda.cpp) in a test.
#pragma once

#include <dlfcn.h>

#include "fake_cuda.hpp"
#include "runner.hpp"

namespace cwai_test {

// The fake bears the real library's name, so the loader takes it for that once it is here.
inline FakeCuda& fake_gpu() {
  static void* const library = dlopen(CWAI_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != nullptr);
  static auto* const get = reinterpret_cast<FakeCuda* (*)()>(dlsym(library, "fake_cuda"));
  CHECK(get != nullptr);
  return *get();
}

inline void no_gpu_is_in_use() {
  CHECK_EQUAL(fake_gpu().contexts.load(), 0);
  CHECK_EQUAL(fake_gpu().allocated.load(), 0);
  CHECK_EQUAL(fake_gpu().made.load(), 0);
}

}  // namespace cwai_test

// The fake libibverbs (fake_verbs.cpp) in a test.
#pragma once

#include <dlfcn.h>

#include "fake_verbs.hpp"
#include "runner.hpp"

namespace cwai_test {

// The fake bears the real library's name, so the loader takes it for that once it is here.
inline FakeVerbs& fake() {
  static void* const library = dlopen(CWAI_FAKE_VERBS, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != nullptr);
  static auto* const get = reinterpret_cast<FakeVerbs* (*)()>(dlsym(library, "fake_verbs"));
  CHECK(get != nullptr);
  static FakeVerbs& state = *get();
  return state;
}

inline void nothing_is_left() {
  CHECK_EQUAL(fake().alive, 0);
  CHECK_EQUAL(fake().freed_too_early, 0);
}

}  // namespace cwai_test

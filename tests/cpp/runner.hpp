// A test runner in a page: TEST(name) { ... CHECK(condition); }
#pragma once

#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

namespace cwai_test {

std::map<std::string, std::function<void()>>& tests();

struct Registration {
  Registration(const char* name, std::function<void()> body) { tests()[name] = std::move(body); }
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename A, typename B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::cerr << file << ":" << line << ": " << text << ": " << a << " is not " << b << "\n";
  throw Failure(text);
}

}  // namespace cwai_test

#define TEST(name)                                                           \
  static void test_##name();                                                 \
  static const cwai_test::Registration register_##name{#name, &test_##name}; \
  static void test_##name()

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << " does not hold\n"; \
      throw cwai_test::Failure(#condition);                                                 \
    }                                                                                       \
  } while (false)

#define CHECK_EQUAL(a, b) cwai_test::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)

/// The fault of the Error that ``expression`` throws; anything else fails the test.
#define CHECK_FAULT(expression, expected)                                       \
  do {                                                                          \
    bool thrown = false;                                                        \
    try {                                                                       \
      expression;                                                               \
    } catch (const cwai::Error& error) {                                        \
      thrown = true;                                                            \
      CHECK_EQUAL(cwai::fault_name(error.fault()), cwai::fault_name(expected)); \
    }                                                                           \
    CHECK(thrown);                                                              \
  } while (false)

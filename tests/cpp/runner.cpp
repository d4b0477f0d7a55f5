#include "runner.hpp"

#include <exception>

namespace cwai_test {

std::map<std::string, std::function<void()>>& tests() {
  static std::map<std::string, std::function<void()>> all;
  return all;
}

}  // namespace cwai_test

// With a name: that test. Without: all of them.
int main(int argc, char** argv) {
  int failed = 0;
  int ran = 0;
  for (const auto& [name, body] : cwai_test::tests()) {
    if (argc > 1 && name != argv[1]) continue;
    ++ran;
    try {
      body();
      std::cout << "ok " << name << "\n";
    } catch (const std::exception& error) {
      std::cout << "FAILED " << name << ": " << error.what() << "\n";
      ++failed;
    }
  }
  if (ran == 0) std::cout << "no such test\n";
  return failed == 0 && ran > 0 ? 0 : 1;
}

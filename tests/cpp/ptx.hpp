// As much of PTX as our own programs (cpp/device/kernels.cpp) need, run on the CPU one thread after
// another: that their text does what it should is tested without a GPU. What it does not know is an
// exception.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cwai_test {

class Ptx {
 public:
  /// Throws std::runtime_error for what it cannot read.
  explicit Ptx(const std::string& text);

  bool has(const std::string& entry) const { return functions_.contains(entry); }
  std::size_t parameters(const std::string& entry) const;

  /// One thread of a launch: ``thread`` of ``block``, of so many each.
  struct Place {
    std::uint32_t thread, threads, block, blocks;
  };
  void run(const std::string& entry, const std::vector<std::uint64_t>& arguments,
           Place place) const;

 private:
  using Words = std::vector<std::string>;
  using Registers = std::map<std::string, std::uint64_t>;
  struct Instruction {
    std::string guard, operation;  // guard: a predicate, or nothing
    std::vector<Words> operands;
  };
  struct Function {
    Words results, parameters;
    std::vector<Instruction> body;
    std::map<std::string, std::size_t> labels;
  };

  std::vector<std::uint64_t> call(const Function& function,
                                  const std::vector<std::uint64_t>& arguments, Place place) const;

  std::map<std::string, Function> functions_;
};

}  // namespace cwai_test

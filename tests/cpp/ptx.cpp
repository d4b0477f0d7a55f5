#include "ptx.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <stdexcept>

namespace cwai_test {
namespace {

using Words = std::vector<std::string>;

bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '%' || c == '.' ||
         c == '@' || c == '-';
}

Words words_of(const std::string& text) {
  Words words;
  for (std::size_t i = 0; i < text.size();) {
    if (text.compare(i, 2, "//") == 0) {
      i = std::min(text.find('\n', i), text.size());
    } else if (std::isspace(static_cast<unsigned char>(text[i])) != 0) {
      ++i;
    } else if (is_name(text[i])) {
      const std::size_t start = i;
      while (i < text.size() && is_name(text[i])) ++i;
      words.push_back(text.substr(start, i - start));
    } else {
      words.emplace_back(1, text[i++]);
    }
  }
  return words;
}

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error("PTX: " + what); }

// The names in ``(.reg .b64 a, .reg .b64 b)``; ``at`` stands behind it afterwards.
Words names(const Words& words, std::size_t& at) {
  Words found;
  for (++at; words.at(at) != ")"; ++at)
    if (words[at][0] != '.' && words[at] != ",") found.push_back(words[at]);
  ++at;
  return found;
}

std::uint64_t low(std::uint64_t value, const std::string& operation) {
  return operation.find("32") != std::string::npos ? value & 0xFFFFFFFF : value;
}

}  // namespace

Ptx::Ptx(const std::string& text) {
  const Words words = words_of(text);
  std::size_t at = 0;
  while (at < words.size()) {
    if (words[at] != ".func" && words[at] != ".entry") {
      ++at;
      continue;
    }
    Function function;
    ++at;
    if (words.at(at) == "(") function.results = names(words, at);
    const std::string& name = words.at(at++);
    function.parameters = names(words, at);
    for (++at; words.at(at) != "}";) {
      if (words.at(at + 1) == ":") {
        function.labels[words[at]] = function.body.size();
        at += 2;
        continue;
      }
      Instruction instruction;
      if (words[at][0] == '@') instruction.guard = words[at++].substr(1);
      instruction.operation = words.at(at++);
      Words operand;
      int depth = 0;
      for (; words.at(at) != ";"; ++at) {
        const char first = words[at][0];
        depth += (first == '(' || first == '{' || first == '[') ? 1 : 0;
        depth -= (first == ')' || first == '}' || first == ']') ? 1 : 0;
        if (first == ',' && depth == 0) {
          instruction.operands.push_back(std::move(operand));
          operand.clear();
        } else if (std::string("(){}[],").find(first) == std::string::npos) {
          operand.push_back(words[at]);
        }
      }
      if (!operand.empty()) instruction.operands.push_back(std::move(operand));
      ++at;
      if (instruction.operation != ".reg") function.body.push_back(std::move(instruction));
    }
    functions_[name] = std::move(function);
  }
}

std::size_t Ptx::parameters(const std::string& entry) const {
  return functions_.at(entry).parameters.size();
}

void Ptx::run(const std::string& entry, const std::vector<std::uint64_t>& arguments,
              Place place) const {
  call(functions_.at(entry), arguments, place);
}

std::vector<std::uint64_t> Ptx::call(const Function& function,
                                     const std::vector<std::uint64_t>& arguments,
                                     Place place) const {
  if (arguments.size() != function.parameters.size()) refuse("another number of arguments");
  Registers registers = {{"%tid.x", place.thread},
                         {"%ntid.x", place.threads},
                         {"%ctaid.x", place.block},
                         {"%nctaid.x", place.blocks}};
  for (std::size_t i = 0; i < arguments.size(); ++i)
    registers[function.parameters[i]] = arguments[i];
  const auto value = [&registers](const std::string& word) -> std::uint64_t {
    if (std::isdigit(static_cast<unsigned char>(word[0])) != 0 || word[0] == '-')
      return word[0] == '-' ? static_cast<std::uint64_t>(std::stoll(word))
                            : std::stoull(word, nullptr, 0);
    const auto found = registers.find(word);
    if (found == registers.end()) refuse(word + " has no value");
    return found->second;
  };
  // ``[at]`` and ``[at + 8]``.
  const auto address = [&](const Words& operand) {
    std::uint64_t sum = 0;
    for (const std::string& word : operand)
      if (word != "+") sum += value(word);
    return reinterpret_cast<std::uint64_t*>(sum);
  };

  for (std::size_t at = 0; at < function.body.size();) {
    const Instruction& now = function.body[at++];
    if (!now.guard.empty() && value(now.guard) == 0) continue;
    const std::string& does = now.operation;
    const auto of = [&](std::size_t i) { return low(value(now.operands.at(i).at(0)), does); };
    const auto is = [&](const char* start) { return does.rfind(start, 0) == 0; };
    const auto put = [&](std::uint64_t result) {
      registers[now.operands.at(0).at(0)] = low(result, does);
    };
    if (does == "ret") break;
    if (does == "bra") {
      at = function.labels.at(now.operands.at(0).at(0));
    } else if (does == "call") {
      const bool gives = !functions_.contains(now.operands.at(0).at(0));
      const Function& called = functions_.at(now.operands.at(gives ? 1 : 0).at(0));
      std::vector<std::uint64_t> given;
      if (now.operands.size() > (gives ? 2U : 1U))
        for (const std::string& word : now.operands.back()) given.push_back(value(word));
      const std::vector<std::uint64_t> results = call(called, given, place);
      for (std::size_t i = 0; gives && i < results.size(); ++i)
        registers[now.operands[0].at(i)] = results[i];
    } else if (does == "ld.param.u64" || is("mov.") || is("cvt.u64.u32") ||
               does == "cvta.to.global.u64") {
      registers[now.operands.at(0).at(0)] = low(of(1), is("cvt.u64.u32") ? "u32" : does);
    } else if (is("add.")) {
      put(of(1) + of(2));
    } else if (is("mul.lo.")) {
      put(of(1) * of(2));
    } else if (is("mad.lo.")) {
      put(of(1) * of(2) + of(3));
    } else if (is("xor.")) {
      put(of(1) ^ of(2));
    } else if (is("shl.")) {
      put(of(1) << of(2));
    } else if (is("shr.u")) {
      put(of(1) >> of(2));
    } else if (is("min.u")) {
      put(std::min(of(1), of(2)));
    } else if (is("setp.ge.u")) {
      put(of(1) >= of(2) ? 1 : 0);
    } else if (is("setp.eq.u")) {
      put(of(1) == of(2) ? 1 : 0);
    } else if (is("setp.ne.u")) {
      put(of(1) != of(2) ? 1 : 0);
    } else if (does == "ld.global.v2.u64") {
      std::uint64_t both[2];
      std::memcpy(both, address(now.operands.at(1)), sizeof both);
      registers[now.operands.at(0).at(0)] = both[0];
      registers[now.operands.at(0).at(1)] = both[1];
    } else if (does == "st.global.v2.u64") {
      const std::uint64_t both[2] = {value(now.operands.at(1).at(0)),
                                     value(now.operands.at(1).at(1))};
      std::memcpy(address(now.operands.at(0)), both, sizeof both);
    } else if (does == "red.global.add.u64") {
      *address(now.operands.at(0)) += of(1);
    } else if (does == "red.global.min.u64") {
      *address(now.operands.at(0)) = std::min(*address(now.operands.at(0)), of(1));
    } else {
      refuse("unknown: " + does);
    }
  }
  std::vector<std::uint64_t> results;
  for (const std::string& name : function.results) results.push_back(value(name));
  return results;
}

}  // namespace cwai_test

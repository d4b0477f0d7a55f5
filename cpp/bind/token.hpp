// The token of a run, as Python has it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <string_view>

#include "support/error.hpp"
#include "transport/tcp.hpp"

namespace cwai {

inline Token to_token(const pybind11::bytes& bytes) {
  const std::string_view view = bytes;
  Token token{};
  if (view.size() != token.size()) throw Error(Fault::kInvalid, "token");
  std::memcpy(token.data(), view.data(), token.size());
  return token;
}

}  // namespace cwai

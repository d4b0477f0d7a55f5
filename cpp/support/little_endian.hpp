// Numbers in records that travel: little-endian, byte by byte, whatever the machine.
#pragma once

#include <cstddef>

namespace cwai {

template <typename Number>
void put(std::byte*& at, Number value) {
  for (std::size_t i = 0; i < sizeof value; ++i)
    *at++ = static_cast<std::byte>((value >> (8 * i)) & 0xFFU);
}

template <typename Number>
Number take(const std::byte*& at) {
  Number value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i)
    value = static_cast<Number>(value | (static_cast<Number>(*at++) << (8 * i)));
  return value;
}

}  // namespace cwai

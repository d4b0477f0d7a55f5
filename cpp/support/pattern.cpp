#include "support/pattern.hpp"

#include <algorithm>
#include <cstring>

namespace cwai {

void fill_pattern(std::byte* data, std::size_t size, std::uint64_t seed) noexcept {
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t word = mix(seed + at);
    std::memcpy(data + at, &word, std::min<std::size_t>(8, size - at));
  }
}

Mismatch check_pattern(const std::byte* data, std::size_t size, std::uint64_t seed) noexcept {
  Mismatch found;
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t word = mix(seed + at);
    const std::size_t length = std::min<std::size_t>(8, size - at);
    if (std::memcmp(data + at, &word, length) == 0) continue;
    std::byte expected[8];
    std::memcpy(expected, &word, sizeof expected);
    for (std::size_t i = 0; i < length; ++i) {
      if (data[at + i] == expected[i]) continue;
      if (found.wrong++ == 0) found.first_bad = static_cast<std::int64_t>(at + i);
    }
  }
  return found;
}

}  // namespace cwai

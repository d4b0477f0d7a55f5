#include "support/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1UL << 7)  // Linux arch/arm64/include/uapi/asm/hwcap.h
#endif
#endif

namespace cwai {
namespace {

constexpr std::uint32_t kReversedPolynomial = 0x82F63B78U;

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1U) != 0 ? kReversedPolynomial : 0U);
    table[i] = crc;
  }
  return table;
}
constexpr auto kTable = make_table();

// An instruction takes three cycles and one begins in each, so three pieces are done at once: as
// long as this, each behind the other.
constexpr std::size_t kPiece = 2048;

using Shift = std::array<std::array<std::uint32_t, 256>, 4>;
using Matrix = std::array<std::uint32_t, 32>;  // over GF(2), column by column

constexpr std::uint32_t times(const Matrix& matrix, std::uint32_t vector) {
  std::uint32_t sum = 0;
  for (std::size_t bit = 0; vector != 0; ++bit, vector >>= 1)
    if ((vector & 1U) != 0) sum ^= matrix[bit];
  return sum;
}

// What kPiece bytes of zero make of a checksum, for each of its bytes.
constexpr Shift make_shift() {
  Matrix zeros{};
  for (std::size_t bit = 0; bit < 32; ++bit) {
    const std::uint32_t one = 1U << bit;
    zeros[bit] = (one >> 8) ^ kTable[one & 0xFFU];
  }
  for (std::size_t bytes = 1; bytes < kPiece; bytes *= 2) {
    Matrix twice{};
    for (std::size_t bit = 0; bit < 32; ++bit) twice[bit] = times(zeros, zeros[bit]);
    zeros = twice;
  }
  Shift shift{};
  for (std::uint32_t byte = 0; byte < 4; ++byte)
    for (std::uint32_t value = 0; value < 256; ++value)
      shift[byte][value] = times(zeros, value << (8 * byte));
  return shift;
}
constexpr Shift kShift = make_shift();

std::uint64_t shifted(std::uint64_t crc) noexcept {
  return kShift[0][crc & 0xFFU] ^ kShift[1][crc >> 8 & 0xFFU] ^ kShift[2][crc >> 16 & 0xFFU] ^
         kShift[3][crc >> 24 & 0xFFU];
}

#if defined(__x86_64__)
#define CWAI_WITH_CRC __attribute__((target("sse4.2")))
bool cpu_has_crc() noexcept { return __builtin_cpu_supports("sse4.2") != 0; }
CWAI_WITH_CRC std::uint64_t add(std::uint64_t crc, std::uint64_t word) noexcept {
  return _mm_crc32_u64(crc, word);
}
CWAI_WITH_CRC std::uint64_t add(std::uint64_t crc, unsigned char byte) noexcept {
  return _mm_crc32_u8(static_cast<std::uint32_t>(crc), byte);
}
#elif defined(__aarch64__)
#define CWAI_WITH_CRC __attribute__((target("+crc")))
bool cpu_has_crc() noexcept { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
CWAI_WITH_CRC std::uint64_t add(std::uint64_t crc, std::uint64_t word) noexcept {
  return __crc32cd(static_cast<std::uint32_t>(crc), word);
}
CWAI_WITH_CRC std::uint64_t add(std::uint64_t crc, unsigned char byte) noexcept {
  return __crc32cb(static_cast<std::uint32_t>(crc), byte);
}
#endif

#ifdef CWAI_WITH_CRC
std::uint64_t word_at(const unsigned char* p) noexcept {
  std::uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

CWAI_WITH_CRC std::uint32_t crc_by_cpu(const unsigned char* p, std::size_t n,
                                       std::uint32_t seed) noexcept {
  std::uint64_t crc = seed;
  for (; n >= 3 * kPiece; n -= 3 * kPiece, p += 3 * kPiece) {
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    for (std::size_t i = 0; i < kPiece; i += 8) {
      crc = add(crc, word_at(p + i));
      second = add(second, word_at(p + kPiece + i));
      third = add(third, word_at(p + 2 * kPiece + i));
    }
    crc = shifted(shifted(crc) ^ second) ^ third;
  }
  for (; n >= 8; n -= 8, p += 8) crc = add(crc, word_at(p));
  for (; n > 0; --n, ++p) crc = add(crc, *p);
  return static_cast<std::uint32_t>(crc);
}
#else
bool cpu_has_crc() noexcept { return false; }
std::uint32_t crc_by_cpu(const unsigned char*, std::size_t, std::uint32_t seed) noexcept {
  return seed;
}
#endif

}  // namespace

bool crc32c_in_hardware() noexcept {
  static const bool has = cpu_has_crc();
  return has;
}

std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t seed) noexcept {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t crc = ~seed;
  for (; size > 0; --size, ++p) crc = (crc >> 8) ^ kTable[(crc ^ *p) & 0xFFU];
  return ~crc;
}

std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t seed) noexcept {
  if (!crc32c_in_hardware()) return crc32c_portable(data, size, seed);
  return ~crc_by_cpu(static_cast<const unsigned char*>(data), size, ~seed);
}

}  // namespace cwai

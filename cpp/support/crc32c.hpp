// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
#pragma once

#include <cstddef>
#include <cstdint>

namespace cwai {

/// By the CPU's own instruction where it has one (asked at run time), else by table.
/// ``seed`` is the CRC of what came before: crc32c(b, m, crc32c(a, n)) is the CRC of a followed by
/// b.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t seed = 0) noexcept;

/// The table alone; the same result on every machine.
std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t seed = 0) noexcept;

bool crc32c_in_hardware() noexcept;

}  // namespace cwai

// What travels on a path: a header of fixed size, and after one of kData its payload, which is the
// bytes of a run. Numbers are little-endian:
//   magic 4, kind 1, unchecked 1, zero 2, transfer 8, first 4, count 4, bytes 4, crc 4, total 8,
//   tag 4, zero 16, check 4
// ``crc`` is that of the payload, unless that is unchecked; ``check`` that of the header before it,
// both CRC-32C. A transfer of no bytes is one block that has no payload.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "multipath/scheduler.hpp"

namespace cwai::multipath {

enum class Kind : std::uint8_t {
  kData = 1,   ///< A run of a transfer of ``total`` bytes follows.
  kDelivered,  ///< The run is where it belongs.
  kBroken,     ///< The run came, and its checksum was wrong.
  kReady,      ///< A buffer of ``total`` bytes is there for the transfer.
  kPing,
  kPong,
  kBye,  ///< All is done; the other end says it too.
};

struct Header {
  Kind kind = Kind::kPing;
  Run run = {};
  std::uint32_t bytes = 0;
  std::uint32_t crc = 0;
  bool checked = true;  ///< Of kData: ``crc`` is there. Memory of a GPU is not read for it.
  std::uint64_t total = 0;
  std::uint32_t tag = 0;  ///< Of kReady: as the buffer was posted.
};

constexpr std::size_t kHeaderSize = 64;
using HeaderBytes = std::array<std::byte, kHeaderSize>;

HeaderBytes encode(const Header& header) noexcept;

/// None: these bytes are no header.
std::optional<Header> decode(const HeaderBytes& bytes) noexcept;

}  // namespace cwai::multipath

#include "multipath/wire.hpp"

#include "support/crc32c.hpp"
#include "support/little_endian.hpp"

namespace cwai::multipath {
namespace {

constexpr std::uint32_t kMagic = 0x504D5743;  // "CWMP"
constexpr std::size_t kChecked = kHeaderSize - 4;

}  // namespace

HeaderBytes encode(const Header& header) noexcept {
  HeaderBytes bytes{};
  std::byte* at = bytes.data();
  put(at, kMagic);
  put(at, static_cast<std::uint8_t>(header.kind));
  put(at, static_cast<std::uint8_t>(header.checked ? 0 : 1));
  at += 2;
  put(at, header.run.transfer);
  put(at, header.run.first);
  put(at, header.run.count);
  put(at, header.bytes);
  put(at, header.crc);
  put(at, header.total);
  put(at, header.tag);
  at = bytes.data() + kChecked;
  put(at, crc32c(bytes.data(), kChecked));
  return bytes;
}

std::optional<Header> decode(const HeaderBytes& bytes) noexcept {
  const std::byte* at = bytes.data() + kChecked;
  if (take<std::uint32_t>(at) != crc32c(bytes.data(), kChecked)) return std::nullopt;
  at = bytes.data();
  if (take<std::uint32_t>(at) != kMagic) return std::nullopt;
  const auto kind = take<std::uint8_t>(at);
  if (kind < static_cast<std::uint8_t>(Kind::kData) || kind > static_cast<std::uint8_t>(Kind::kBye))
    return std::nullopt;
  Header header;
  header.kind = static_cast<Kind>(kind);
  header.checked = take<std::uint8_t>(at) == 0;
  at += 2;
  header.run.transfer = take<std::uint64_t>(at);
  header.run.first = take<std::uint32_t>(at);
  header.run.count = take<std::uint32_t>(at);
  header.bytes = take<std::uint32_t>(at);
  header.crc = take<std::uint32_t>(at);
  header.total = take<std::uint64_t>(at);
  header.tag = take<std::uint32_t>(at);
  return header;
}

}  // namespace cwai::multipath

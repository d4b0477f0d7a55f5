#include "nccl_plugin/greeting.hpp"

#include <arpa/inet.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"

namespace cwai::nccl_net {
namespace {

constexpr std::uint64_t kHandleMagic = 0x31484E4941574351;    // another one for each layout
constexpr std::uint64_t kGreetingMagic = 0x32474E4941574351;  // and for each version of the engine
constexpr std::size_t kAddressBytes = 16;
constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

// IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
void put_address(std::byte*& at, const std::string& text) {
  std::array<std::uint8_t, kAddressBytes> bytes{};
  if (text.find(':') != std::string::npos) {
    inet_pton(AF_INET6, text.c_str(), bytes.data());
  } else {
    std::copy(kMapped.begin(), kMapped.end(), bytes.begin());
    inet_pton(AF_INET, text.c_str(), bytes.data() + kMapped.size());
  }
  std::memcpy(at, bytes.data(), bytes.size());
  at += bytes.size();
}

std::string take_address(const std::byte*& at) {
  char text[INET6_ADDRSTRLEN] = "";
  if (std::memcmp(at, kMapped.data(), kMapped.size()) == 0)
    inet_ntop(AF_INET, at + kMapped.size(), text, sizeof text);
  else
    inet_ntop(AF_INET6, at, text, sizeof text);
  at += kAddressBytes;
  return text;
}

void put_name(std::byte*& at, const std::string& name) {
  std::memcpy(at, name.data(), std::min(name.size(), kNameBytes));
  at += kNameBytes;
}

// Of the other end, and meant for a person.
std::string take_name(const std::byte*& at) {
  std::string name;
  for (std::size_t i = 0; i < kNameBytes && at[i] != std::byte{0}; ++i)
    name += static_cast<char>(at[i]);
  at += kNameBytes;
  return name;
}

template <std::size_t kSize>
void put_bytes(std::byte*& at, const std::array<std::byte, kSize>& bytes) {
  std::memcpy(at, bytes.data(), kSize);
  at += kSize;
}

template <std::size_t kSize>
void take_bytes(const std::byte*& at, std::array<std::byte, kSize>& bytes) {
  std::memcpy(bytes.data(), at, kSize);
  at += kSize;
}

}  // namespace

void fill_random(std::span<std::byte> bytes) {
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw Error(Fault::kTransfer, "getrandom", errno);
}

// magic 8, places 4, token 32, then 16 + 2 for each place, crc 4.
void write_handle(const Invitation& invitation, std::span<std::byte, kHandleBytes> handle) {
  static_assert(8 + 4 + 32 + kMostPlaces * (kAddressBytes + 2) + 4 <= kHandleBytes);
  std::memset(handle.data(), 0, handle.size());
  std::byte* at = handle.data();
  put(at, kHandleMagic);
  put(at, static_cast<std::uint32_t>(std::min(invitation.places.size(), kMostPlaces)));
  put_bytes(at, invitation.token);
  for (std::size_t i = 0; i < invitation.places.size() && i < kMostPlaces; ++i) {
    put_address(at, invitation.places[i].address);
    put(at, static_cast<std::uint16_t>(invitation.places[i].port));
  }
  at = handle.data() + kHandleBytes - 4;
  put(at, crc32c(handle.data(), kHandleBytes - 4));
}

std::optional<Invitation> read_handle(std::span<const std::byte, kHandleBytes> handle) {
  const std::byte* at = handle.data() + kHandleBytes - 4;
  if (take<std::uint32_t>(at) != crc32c(handle.data(), kHandleBytes - 4)) return std::nullopt;
  at = handle.data();
  if (take<std::uint64_t>(at) != kHandleMagic) return std::nullopt;
  const auto places = take<std::uint32_t>(at);
  if (places == 0 || places > kMostPlaces) return std::nullopt;
  Invitation invitation;
  take_bytes(at, invitation.token);
  for (std::uint32_t i = 0; i < places; ++i) {
    Place place;
    place.address = take_address(at);
    place.port = take<std::uint16_t>(at);
    invitation.places.push_back(place);
  }
  return invitation;
}

// magic 8, word 2, path 2, count 2, rails 2, token 32, session 16, then for each rail address 16,
// prefix 1, link 1, port 2, name 28; crc 4.
GreetingBytes encode(const Greeting& greeting) {
  GreetingBytes bytes{};
  std::byte* at = bytes.data();
  put(at, kGreetingMagic);
  put(at, static_cast<std::uint16_t>(greeting.word));
  put(at, greeting.path);
  put(at, greeting.count);
  const std::size_t rails = std::min(greeting.rails.size(), 2 * kMostRails);
  put(at, static_cast<std::uint16_t>(rails));
  put_bytes(at, greeting.token);
  put_bytes(at, greeting.session);
  for (std::size_t i = 0; i < rails; ++i) {
    const Rail& rail = greeting.rails[i];
    put_address(at, rail.address);
    put(at, static_cast<std::uint8_t>(rail.prefix));
    put(at, static_cast<std::uint8_t>(rail.link));
    put(at, static_cast<std::uint16_t>(rail.port));
    put_name(at, rail.name);
  }
  at = bytes.data() + kGreetingSize - 4;
  put(at, crc32c(bytes.data(), kGreetingSize - 4));
  return bytes;
}

std::optional<Greeting> decode(const GreetingBytes& bytes) {
  const std::byte* at = bytes.data() + kGreetingSize - 4;
  if (take<std::uint32_t>(at) != crc32c(bytes.data(), kGreetingSize - 4)) return std::nullopt;
  at = bytes.data();
  if (take<std::uint64_t>(at) != kGreetingMagic) return std::nullopt;
  const auto word = take<std::uint16_t>(at);
  if (word < static_cast<std::uint16_t>(Word::kMeet) ||
      word > static_cast<std::uint16_t>(Word::kNo))
    return std::nullopt;
  Greeting greeting;
  greeting.word = static_cast<Word>(word);
  greeting.path = take<std::uint16_t>(at);
  greeting.count = take<std::uint16_t>(at);
  const auto rails = take<std::uint16_t>(at);
  if (rails > 2 * kMostRails) return std::nullopt;
  take_bytes(at, greeting.token);
  take_bytes(at, greeting.session);
  for (std::uint16_t i = 0; i < rails; ++i) {
    Rail rail;
    rail.address = take_address(at);
    rail.prefix = take<std::uint8_t>(at);
    const auto link = take<std::uint8_t>(at);
    if (link > static_cast<std::uint8_t>(Link::kRoce)) return std::nullopt;
    rail.link = static_cast<Link>(link);
    rail.port = take<std::uint16_t>(at);
    rail.name = take_name(at);
    greeting.rails.push_back(rail);
  }
  return greeting;
}

Agreement agree(const std::vector<Rail>& left, const std::vector<Rail>& right,
                std::size_t connections) {
  const auto pairs = pair_rails(left, right);
  const auto is_rdma = [](const Rail& rail) { return rail.rdma(); };
  const bool rdma = std::any_of(pairs.begin(), pairs.end(),
                                [&](const auto& pair) { return left[pair.first].rdma(); });
  Agreement agreed{.transport = rdma ? Transport::kRdma : Transport::kTcp, .routes = {}};
  // Round by round, so that what is too many is left out evenly.
  for (std::size_t k = 0; k < connections; ++k)
    for (const auto& [i, j] : pairs)
      if (left[i].rdma() == rdma && agreed.routes.size() < kMostPaths)
        agreed.routes.push_back({left[i], right[j]});
  const bool sends = std::any_of(left.begin(), left.end(), is_rdma);
  const bool receives = std::any_of(right.begin(), right.end(), is_rdma);
  if (!rdma && sends && receives)
    agreed.why_tcp = "the ends have no kind of RDMA in common";
  else if (!rdma && (sends || receives))
    agreed.why_tcp = std::string("only the ") + (sends ? "sending" : "receiving") +
                     " end has RDMA, or may use it";
  return agreed;
}

}  // namespace cwai::nccl_net

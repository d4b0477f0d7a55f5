// What two ends say to each other before data flows.
//
//   receiving end                          sending end
//   listen: a token, addresses ──handle──► (by NCCL's own network)
//           ◄────────── meet: token, rails, connections on each path
//   met: session, rails, number of paths ►                   (both know from the rails: RDMA or
//   TCP)
//           ◄────────── join: token, session, path      on each connection, and on each new one
//   joined ─────────────────────────────►               then it is a connection of the engine, or
//                                                       the ends tell each other of queue pairs
//
// The token is random, new for each listen(), and known to whom NCCL gave the handle; it travels in
// the clear, as NCCL's own data do: it keeps strangers and other jobs out, and is no protection
// against somebody who can read the network.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nccl_plugin/net_abi.hpp"
#include "nccl_plugin/rails.hpp"
#include "transport/tcp.hpp"

namespace cwai::nccl_net {

using Session = std::array<std::byte, 16>;

/// Of the system's random numbers. Throws Error(kTransfer).
void fill_random(std::span<std::byte> bytes);

struct Place {
  std::string address;
  int port = 0;
};

/// What a handle of NCCL says: where to meet, any of these.
struct Invitation {
  Token token{};
  std::vector<Place> places;
};
constexpr std::size_t kMostPlaces = 4;

void write_handle(const Invitation& invitation, std::span<std::byte, kHandleBytes> handle);
/// None: it is no handle of this plugin, or of another version.
std::optional<Invitation> read_handle(std::span<const std::byte, kHandleBytes> handle);

enum class Word : std::uint16_t {
  kMeet = 1,
  kMet,
  kJoin,
  kJoined,
  kNo,  ///< The token or the session is not known here, or no longer.
};

struct Greeting {
  Word word = Word::kNo;
  std::uint16_t path = 0;   ///< Of kJoin.
  std::uint16_t count = 0;  ///< Of kMeet: connections on each path. Of kMet: paths in all.
  Token token{};
  Session session{};
  std::vector<Rail> rails = {};  ///< Those that may be used.
};

constexpr std::size_t kNameBytes = 28;  ///< Of a rail, as it travels.
constexpr std::size_t kGreetingSize = 8 + 4 * 2 + 32 + 16 + 2 * kMostRails * (20 + kNameBytes) + 4;
using GreetingBytes = std::array<std::byte, kGreetingSize>;

GreetingBytes encode(const Greeting& greeting);
std::optional<Greeting> decode(const GreetingBytes& bytes);

/// More are not made for one comm, however many connections on each path were asked for.
constexpr std::size_t kMostPaths = 128;

struct Route {
  Rail local, remote;
};

/// What two ends make of each other's rails; both come to the same.
struct Agreement {
  /// Never kEither: RDMA where there is one path of it, TCP else.
  Transport transport = Transport::kTcp;
  std::vector<Route> routes;  ///< From the sending to the receiving end; none: they cannot meet.
  std::string why_tcp = {};   ///< Why it is not RDMA, though one of them has it.
};

/// What is wrong where there is none.
constexpr const char* kNoPath =
    "the ends have no kind of path in common: see NCCL_SOCKET_IFNAME, NCCL_SOCKET_FAMILY, "
    "NCCL_IB_HCA, NCCL_IB_DISABLE and CWAI_NET_TRANSPORT of both";

/// ``left``: of the sending end; ``right``: of the receiving one.
Agreement agree(const std::vector<Rail>& left, const std::vector<Rail>& right,
                std::size_t connections);

}  // namespace cwai::nccl_net

#include "probe/run.hpp"

#include <cerrno>
#include <vector>

#include "support/buffer.hpp"
#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"

namespace cwai {
namespace {

constexpr std::size_t kWireSize = sizeof(Words) + 4;
using Wire = std::array<std::byte, kWireSize>;

Wire encode(const Words& words) {
  Wire wire;
  std::byte* at = wire.data();
  for (const std::uint64_t word : words) put(at, word);
  put(at, crc32c(wire.data(), sizeof(Words)));
  return wire;
}

Words decode(const Wire& wire, const Connection& connection) {
  Words words{};
  const std::byte* at = wire.data();
  for (std::uint64_t& word : words) word = take<std::uint64_t>(at);
  if (take<std::uint32_t>(at) != crc32c(wire.data(), sizeof(Words)))
    throw Error(Fault::kGarbled, connection.remote());
  return words;
}

}  // namespace

void expect_success(const Connection& connection, const Completion& completion) {
  if (completion.status == 0) return;
  if (stop_requested())
    throw Error(Fault::kStopped, "");  // that the peer has left as well is no news
  const bool gone = completion.status == ECONNRESET;
  throw Error(gone ? Fault::kPeerClosed : Fault::kTransfer, connection.remote(), completion.status);
}

Completion complete(Connection& connection, const Watch& watch) {
  Completion completion{};
  while (connection.wait({&completion, 1}, watch.slice_end()) == 0) watch.check();
  expect_success(connection, completion);
  return completion;
}

void expect_agreement(bool agreed, const char* what) {
  if (!agreed) throw Error(Fault::kDisagreed, what);
}

Words swap_words(Connection& connection, const Words& mine, const Watch& watch) {
  const Wire out = encode(mine);
  Wire in{};
  const FenceOnError guard(connection);
  connection.post_receive(0, in, 0);
  connection.post_send(0, out, 0);
  complete(connection, watch);
  complete(connection, watch);
  return decode(in, connection);
}

Mismatch verify(Connection& connection, std::size_t size, bool sends, bool receives,
                std::uint64_t seed, const Watch& watch) {
  const auto lanes = static_cast<std::size_t>(connection.lanes());
  std::vector<Buffer> outgoing;
  std::vector<Buffer> incoming;
  const FenceOnError guard(connection);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    if (receives) {
      incoming.emplace_back(size);
      // Nothing that was there before may pass for what should arrive.
      fill_pattern(incoming.back().data(), size, ~mix(seed + lane));
      connection.post_receive(static_cast<int>(lane), {incoming.back().data(), size}, lane);
    }
  }
  for (std::size_t lane = 0; lane < lanes && sends; ++lane) {
    outgoing.emplace_back(size);
    fill_pattern(outgoing.back().data(), size, mix(seed + lane));
    connection.post_send(static_cast<int>(lane), {outgoing.back().data(), size}, lane);
  }
  for (std::size_t i = 0; i < outgoing.size() + incoming.size(); ++i) complete(connection, watch);

  Mismatch all;
  for (std::size_t lane = 0; lane < incoming.size(); ++lane) {
    const Mismatch one = check_pattern(incoming[lane].data(), size, mix(seed + lane));
    if (all.wrong == 0 && one.wrong > 0)
      all.first_bad = static_cast<std::int64_t>(lane * size) + one.first_bad;
    all.wrong += one.wrong;
  }
  return all;
}

}  // namespace cwai

// Bandwidth and latency of RDMA itself: write, read and send as the NIC does them, with nothing of
// ours on top of them.
//
// The end that initiates posts the requests and counts what has been acknowledged. The other end
// has nothing to do for write and read; for send it keeps receives posted. Beside it both ends talk
// over the TCP connection on which they met: what they are about to do, and when each is done.
#pragma once

#include <cstdint>
#include <vector>

#include "probe/bandwidth.hpp"
#include "probe/latency.hpp"
#include "support/error.hpp"
#include "support/pattern.hpp"
#include "verbs/queue_pairs.hpp"

namespace cwai {

/// Of what one request may ask for (IBTA vol. 1, 9.2).
constexpr std::size_t kLargestRdmaMessage = std::size_t{1} << 31;

enum class Verb : std::uint8_t { kWrite, kRead, kSend };

/// ``memory``: how the NIC of this end reached its memory, as Memory::way() says; ``posting``: how
/// requests got to it, as Joined::posting() says.
struct RdmaBandwidthResult : BandwidthResult {
  const char* memory = "host";
  const char* posting = "";
};

/// Both ends are given the same, but for ``initiates``.
struct RdmaBandwidthSpec : WindowSpec {
  Verb verb = Verb::kWrite;
  std::size_t size = 65536;  ///< Bytes of a message, at least 1.
  bool initiates = false;
  bool two_way = false;  ///< Both initiate, and each counts only while the other one does as well.
  bool verify = true;    ///< One pass of seeded data afterwards, outside the timed part.
  std::uint64_t seed = 0;
};

/// What this end initiated, on its own clock; ``peer_*``: what the other one did. ``wrong`` and
/// ``first_bad`` are of both ends. Throws Error: kInvalid, kDevice, kDisagreed, kPeerClosed,
/// kTransfer (with the library's words for the completion), kGarbled, kDeadline, kStopped.
RdmaBandwidthResult measure_rdma_bandwidth(QueuePairs& pairs, const RdmaBandwidthSpec& spec,
                                           const Watch& watch);

struct RdmaLatencySpec {
  Verb verb = Verb::kWrite;
  std::size_t size = 2;  ///< Bytes of a message each way, at least 1.
  bool initiates = false;
  std::uint64_t iterations = 2000;  ///< At most; the counted ones.
  Nanos duration = 0;               ///< Ends the counted part earlier; 0: never.
  std::uint64_t warmup = 100;       ///< Round trips before the counted ones.
  bool verify = true;
  std::uint64_t seed = 0;
};

/// Full round trips on the first queue pair, on the end that initiates: of write and send a message
/// there and one back, of read a request there and the data back. Both ends ask again and again
/// instead of sleeping. Throws as above.
LatencyResult measure_rdma_latency(QueuePairs& pairs, const RdmaLatencySpec& spec,
                                   const Watch& watch);

// ------------------------------------------------------------------------ what both have in common

/// Where the other end's memory is, and the key to it.
struct Remote {
  std::uint64_t base;
  std::uint32_t key;
};

Remote swap_places(QueuePairs& pairs, const Memory& memory, const Watch& watch);

/// One message of seeded data on each queue pair, each way that is asked for;
/// what came is compared with what should have come. Everything that was posted before must have
/// completed; for send, the next receive on each queue pair must be that of its slot of
/// ``landings``.
Mismatch verify_rdma(QueuePairs& pairs, const Joined& joined, const Memory& memory,
                     const Remote& remote, Verb verb, std::size_t size, bool initiates,
                     bool answers, std::span<const std::size_t> landings, std::uint64_t seed,
                     const Watch& watch);

/// A work request of ``verb`` for one message between the given places.
verbs::SendWr request_of(Verb verb);

/// What ``run`` returns. When it ends because nothing came any more, and this end's own port has
/// gone down, that is what it throws: Error(kDevice, ENETDOWN).
template <typename Run>
auto with_port(const QueuePairs& pairs, Run run) {
  try {
    return run();
  } catch (const Error& error) {
    const Fault fault = error.fault();
    if (fault == Fault::kTransfer || fault == Fault::kPeerClosed || fault == Fault::kDeadline)
      pairs.endpoint().expect_active();
    throw;
  }
}

}  // namespace cwai

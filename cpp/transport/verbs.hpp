// RDMA: a lane is a reliable queue pair.
//
// The ends meet over TCP first (transport/tcp.hpp): that connection carries the token of the run,
// tells each end where the other's queue pairs are, and stays open to tell that the other has gone.
//
// Messages go by RDMA write: an end tells the other where each buffer is that it posts for
// receiving (a landing: address, key and size), and the other writes the next message there, with
// a notice. So a message is copied by nobody, and none is sent that has no place to go. A landing
// is described once, in a small send, and called by a number from then on; the numbers ride in the
// notices of the messages that go the other way, or, when none goes, many at once in a small send:
// a round trip is two writes.
#pragma once

#include <memory>

#include "support/stop.hpp"
#include "transport/transport.hpp"
#include "verbs/dma_bufs.hpp"
#include "verbs/endpoint.hpp"

namespace cwai {

struct VerbsSpec {
  verbs::PathSpec path;
  int lanes = 1;
  /// What of the memory that is lent and posted is a dma-buf, if any is.
  std::shared_ptr<const verbs::DmaBufs> dma_bufs = nullptr;
};

/// Both ends call it on their end of one TCP connection. Throws Error: kLibrary, kDevice (errno),
/// kDisagreed, kGarbled, kPeerClosed, kTransfer, kDeadline, kStopped.
std::unique_ptr<Connection> verbs_over(std::unique_ptr<Connection> control, const VerbsSpec& spec,
                                       Waiting waiting, const Watch& watch);

}  // namespace cwai

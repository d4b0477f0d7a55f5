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
#include <string>

#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

struct VerbsSpec {
  std::string device;  ///< As in /sys/class/infiniband.
  int port = 1;
  int gid_index = -1;  ///< Negative: chosen as verbs/library.hpp says.
  int lanes = 1;
  int service_level = 0;
  int traffic_class = 0;
  int timeout = 14;  ///< Of a packet's answer: 4.096 us · 2^timeout (IBTA vol. 1, 9.7.6.1.3).
  int retries = 7;
};

/// Both ends call it on their end of one TCP connection. Throws Error: kLibrary, kDevice (errno),
/// kDisagreed, kGarbled, kPeerClosed, kTransfer, kDeadline, kStopped.
std::unique_ptr<Connection> verbs_over(std::unique_ptr<Connection> control, const VerbsSpec& spec,
                                       Waiting waiting, const Watch& watch);

}  // namespace cwai

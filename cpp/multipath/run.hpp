// Measures transfers over several paths, from one end to the other: TCP, or RDMA, whose ends meet
// over TCP.
//
// A path is one or more connections, which the engine knows one by one; they are told together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multipath/receiver.hpp"
#include "multipath/sender.hpp"
#include "transport/tcp.hpp"
#include "verbs/endpoint.hpp"

namespace cwai::multipath {

/// One path: from the address ``local`` to a listener. Numeric; an empty ``local`` leaves the
/// choice to the system. With a NIC of this end it is RDMA, and the other end has one too.
struct Route {
  std::string local, remote;
  int port;
  std::optional<verbs::PathSpec> nic = std::nullopt;
};

/// What both ends must be told alike. Lengths of time are in nanoseconds.
struct Work {
  std::size_t bytes = 0;  ///< Of a transfer.
  std::uint32_t transfers = 1;
  std::size_t block = 64 << 10;
  std::size_t connections = 1;  ///< Of a path, at most kMostConnections.
  std::uint64_t seed = 0;       ///< Of the data.
  Nanos timeout = 60 * kSecond;
};

/// A fault planted at a path's sending end, and taken away: seconds are since the first byte.
struct Rehearsal {
  std::size_t path;
  Nanos begin, end;
  enum class Kind : std::uint8_t { kCut, kReset, kSlow, kCorrupt } kind;
  double rate = 0;  ///< Bytes per second, of kSlow.
};

struct PathResult {
  PathCounts counts;
  std::uint32_t failures = 0;
  PathState state = PathState::kFailed;  ///< At the end, of the connection that is best off.
  bool connected = false;                ///< At the beginning, by one connection at least.
  std::vector<std::uint64_t> timeline;   ///< Bytes delivered in each step.
};

/// What ended a run early, if anything did: what was done before that is there all the same.
struct Ended {
  std::string fault, why;
  int code = 0;  ///< errno, or 0.
};

/// Something that happened to a connection of a path.
struct PathEvent {
  Event event;  ///< With the number of the path.
  std::size_t connection;
};

/// What the sending end saw.
struct SendResult {
  std::vector<double> times;  ///< Seconds of each transfer that is complete, from when the other
                              ///< end was ready until all was delivered.
  std::size_t delivered = 0;  ///< Bytes, in all.
  double start = 0;           ///< Of the first byte, by the system's monotonic clock, in seconds.
  double step = 0;            ///< Seconds, of the timelines.
  double recovered = 0;       ///< Seconds since start until all was delivered that a path had lost.
  std::vector<PathResult> paths;
  std::vector<PathEvent> events;  ///< Times in nanoseconds since the first byte.
  Ended ended;
};

struct ReceiveResult {
  std::uint32_t complete = 0;   ///< Transfers.
  std::uint64_t wrong = 0;      ///< Bytes that are not as they should be, in all of them.
  std::int64_t first_bad = -1;  ///< Index of the first, in the first transfer that has any.
  std::vector<ArrivalCounts> paths;
  std::vector<PathEvent> events;
  Ended ended;
};

/// A listener for each path.
class Listeners {
 public:
  /// ``nics``: of this end, as of Route, for each path; or none at all. Throws as TcpListener does,
  /// and Error(kInvalid).
  explicit Listeners(const std::vector<std::string>& addresses,
                     std::vector<std::optional<verbs::PathSpec>> nics = {});
  std::vector<int> ports() const;
  /// Receives ``work`` over all paths that come. Throws Error(kInvalid, kStopped).
  ReceiveResult receive(const Token& token, const Work& work);

 private:
  std::vector<std::unique_ptr<TcpListener>> listeners_;
  std::vector<std::optional<verbs::PathSpec>> nics_;
};

constexpr std::size_t kMostConnections = 128;

/// Sends ``work``; the other end must be receiving it. A path that cannot be connected within
/// ``patience`` is left out, and tried again. Throws Error: kInvalid, kStopped; and when there is
/// no path at all why the first could not be: kConnect, kDevice, kLibrary ….
SendResult send(const std::vector<Route>& routes, const Token& token, const SenderSpec& spec,
                const Work& work, const std::vector<Rehearsal>& rehearsals, Nanos patience);

}  // namespace cwai::multipath

// Measures transfers over several TCP paths, from one end to the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "multipath/receiver.hpp"
#include "multipath/sender.hpp"
#include "transport/tcp.hpp"

namespace cwai::multipath {

/// One path: from the address ``local`` to a listener. Numeric; an empty ``local`` leaves the
/// choice to the system.
struct Route {
  std::string local, remote;
  int port;
};

/// What both ends must be told alike. Lengths of time are in nanoseconds.
struct Work {
  std::size_t bytes = 0;  ///< Of a transfer.
  std::uint32_t transfers = 1;
  std::size_t block = 64 << 10;
  std::uint64_t seed = 0;  ///< Of the data.
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
  PathState state = PathState::kHealthy;  ///< At the end.
  bool connected = false;                 ///< At the beginning.
  std::vector<std::uint64_t> timeline;    ///< Bytes delivered in each step.
};

/// What the sending end saw. ``fault`` and ``why`` say what ended it early, if anything did: what
/// was done before that is there all the same.
struct SendResult {
  std::vector<double> times;  ///< Seconds of each transfer that is complete, from when the other
                              ///< end was ready until all was delivered.
  std::size_t delivered = 0;  ///< Bytes, in all.
  double start = 0;           ///< Of the first byte, by the system's monotonic clock, in seconds.
  double step = 0;            ///< Seconds, of the timelines.
  double recovered = 0;       ///< Seconds since start until all was delivered that a path had lost.
  std::vector<PathResult> paths;
  std::vector<Event> events;  ///< Times in nanoseconds since the first byte.
  std::string fault, why;
};

struct ReceiveResult {
  std::uint32_t complete = 0;   ///< Transfers.
  std::uint64_t wrong = 0;      ///< Bytes that are not as they should be, in all of them.
  std::int64_t first_bad = -1;  ///< Index of the first, in the first transfer that has any.
  std::vector<ArrivalCounts> paths;
  std::vector<Event> events;
  std::string fault, why;
};

/// A listener for each path.
class Listeners {
 public:
  /// Throws as TcpListener does.
  explicit Listeners(const std::vector<std::string>& addresses);
  std::vector<int> ports() const;
  /// Receives ``work`` over all paths that come. Throws Error(kInvalid, kStopped).
  ReceiveResult receive(const Token& token, const Work& work);

 private:
  std::vector<std::unique_ptr<TcpListener>> listeners_;
};

/// Sends ``work``; the other end must be receiving it. A path that cannot be connected within
/// ``patience`` is left out, and tried again. Throws Error: kInvalid, kStopped, kConnect when there
/// is none.
SendResult send(const std::vector<Route>& routes, const Token& token, const SenderSpec& spec,
                const Work& work, const std::vector<Rehearsal>& rehearsals, Nanos patience);

}  // namespace cwai::multipath

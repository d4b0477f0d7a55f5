// How bytes move between two ends, asynchronously.
//
//   post_receive / post_send ──► poll or wait ──► Completion (tag, status, time)        fence ──►
//   nothing moves any more
//
// A Connection joins two ends by one or more lanes (a TCP stream, a queue pair, a path). A lane
// keeps order; lanes are independent of one another. Messages match by order: the n-th message
// posted for sending on a lane lands in the n-th buffer posted for receiving on the other end of
// that lane, and both name the same size. Nothing is copied before it has to be: a buffer belongs
// to the connection from post until its completion.
//
// One thread drives one end. Progress is made inside poll() and wait(), and nowhere else.
#pragma once

#include <poll.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/clock.hpp"

namespace cwai {

/// How wait() waits: asleep in the system (kBlock), or asking again and again (kSpin).
enum class Waiting : std::uint8_t { kBlock, kSpin };

enum class Direction : std::uint8_t { kSend, kReceive };

/// What the coming traffic is for. TCP lets small segments wait for company unless it is kLatency.
enum class Goal : std::uint8_t { kBandwidth, kLatency };

struct Completion {
  std::uint64_t tag;  ///< As given to post_*.
  std::size_t bytes;
  Nanos time;  ///< When this end saw it.
  int status;  ///< 0, or errno: ECONNRESET the peer is gone, ECANCELED fenced; see misconfigured().
  int lane;
  Direction direction;
};

/// Whether the status of an operation says that this end's memory (EFAULT), the other end's
/// (EACCES) or the request itself (EBADR) was refused: that is settings or a bug, and no other path
/// would do better.
constexpr bool misconfigured(int status) noexcept {
  return status == EFAULT || status == EACCES || status == EBADR;
}

class Connection {
 public:
  /// Post at most this many operations per lane and direction before one of them completes.
  static constexpr std::size_t kDepth = 64;

  virtual ~Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// ``data`` must stay as it is until the completion. Throws Error(kInvalid) when kDepth are
  /// pending.
  virtual void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) = 0;

  /// ``data`` may be written at any time until the completion. Throws as post_send() does.
  virtual void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) = 0;

  /// What is posted will often be parts of ``memory``, until it is taken back: a transport that has
  /// to register memory does it once, and not for each part. Throws Error(kDevice) when it is
  /// refused.
  virtual void lend(std::span<const std::byte>) {}
  /// ``memory`` may be unmapped from now on; nothing of it is pending. To be called of all that was
  /// posted before it goes, lent or not, as long as the connection stays.
  virtual void take_back(std::span<const std::byte>) {}

  /// Makes what progress can be made without waiting; returns how many completions it put into
  /// ``out``. A broken lane is no exception: its operations complete with a status.
  virtual std::size_t poll(std::span<Completion> out) = 0;

  /// As poll(), but waits for a first completion until ``until``; may return 0 up to kSlice later,
  /// or earlier.
  virtual std::size_t wait(std::span<Completion> out, Nanos until) = 0;

  /// For somebody who waits for several connections at once: adds to ``into`` what poll(2) is to
  /// look at, and returns until when at most to sleep. What came before it wakes nobody, so poll()
  /// once more, then sleep, then disarm().
  virtual Nanos arm(std::vector<pollfd>& into) = 0;
  virtual void disarm() = 0;

  /// Lets go of the buffer of a pending operation, and goes on in ``instead``, of the same size,
  /// with what was in the old one so far: when it returns true nobody reads or writes the old one
  /// any more. False: no such operation is pending, or this transport cannot; then only fence()
  /// gets the buffer back.
  virtual bool redirect(int lane, Direction direction, std::uint64_t tag,
                        std::span<std::byte> instead) = 0;

  /// Stops, drains and revokes: when it returns, neither this end nor the peer reads or writes a
  /// buffer that was posted here; what was pending completes with ECANCELED at the next poll().
  /// Nothing can be posted afterwards.
  virtual void fence() = 0;

  virtual void prepare(Goal goal) = 0;

  /// Messages in flight per lane that keep this transport busy.
  virtual std::size_t useful_depth() const noexcept = 0;

  virtual int lanes() const noexcept = 0;
  virtual const char* transport() const noexcept = 0;

  /// The ends, for a person: ``127.0.0.1:18515``.
  virtual std::string local() const = 0;
  virtual std::string remote() const = 0;

 protected:
  Connection() = default;
};

}  // namespace cwai

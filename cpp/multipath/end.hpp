// One end of several paths: what the sending and the receiving end have in common. Each path is a
// Connection of one lane, replaced by a new one when it broke. One thread drives an end; dialling
// is done beside it.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multipath/health.hpp"
#include "multipath/wire.hpp"
#include "support/error.hpp"
#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai::multipath {

/// Makes the connection of a path anew, of one lane; throws Error. Called on a thread of its own,
/// never twice at once for one path.
using Dial = std::function<std::unique_ptr<Connection>(std::size_t path, const Watch& watch)>;

enum class Cause : std::uint8_t {
  kConnected,  ///< A connection is there again.
  kAnswered,   ///< Probes were answered.
  kDelivered,  ///< It delivers again, or has delivered enough.
  kStalled,    ///< Nothing was delivered for too long.
  kSilent,     ///< And not for long after that either; or a probe was not answered.
  kError,      ///< The transport said so: ``code`` is errno.
  kGarbled,    ///< What came is not of this protocol.
  kCorrupt,    ///< A payload whose checksum is wrong; the path stays in use.
  kRefused,    ///< It could not be connected again: ``code`` is errno.
};

const char* cause_name(Cause cause) noexcept;

/// Something that happened to a path.
struct Event {
  Nanos at;
  std::size_t path;
  PathState state;  ///< From now on.
  Cause cause;
  int code;
};

/// Dials, on a thread per path that is being dialled.
class Dialler {
 public:
  struct Answer {
    std::size_t path;
    std::unique_ptr<Connection> connection;  ///< Or null, and why:
    int code;
  };

  Dialler(Dial dial, std::size_t paths, Nanos patience);
  ~Dialler();
  Dialler(const Dialler&) = delete;
  Dialler& operator=(const Dialler&) = delete;

  /// False: nobody dials here.
  bool ask(std::size_t path);
  void give(Answer answer);
  void wake() noexcept;
  std::optional<Answer> take();
  /// Readable when there may be an answer.
  int fd() const noexcept { return event_; }
  void quiet() noexcept;

 private:
  Dial dial_;
  Nanos patience_;
  int event_;
  std::atomic<bool> given_up_{false};
  std::mutex mutex_;
  std::deque<Answer> answers_;
  std::vector<std::thread> threads_;
};

/// All paths at once, each within ``patience``; null where it failed. Throws Error: kStopped,
/// kInvalid, kAddress; what kept the first from it, when there is none.
std::vector<std::unique_ptr<Connection>> dial_all(std::size_t paths, const Dial& dial,
                                                  Nanos patience,
                                                  const std::atomic<bool>* given_up = nullptr);

class End {
 public:
  virtual ~End() = default;
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  /// Does what there is to do; sleeps for it, at most until ``until``. Throws
  /// Error(kMisconfigured), naming the ends, when a path was refused what no path would be granted:
  /// that is told, and not made up for.
  void progress(Nanos until);

  std::size_t paths() const noexcept { return paths_.size(); }
  bool alive(std::size_t path) const { return paths_[path]->connection != nullptr; }
  /// The last kEvents of them.
  const std::deque<Event>& events() const noexcept { return events_; }
  static constexpr std::size_t kEvents = 4096;
  /// Of all that there were.
  std::uint64_t noted() const noexcept { return noted_; }

  /// A new connection of a path, from somebody who does not wait to be asked. From any thread.
  void offer(std::size_t path, std::unique_ptr<Connection> connection) {
    dialler_.give({path, std::move(connection), 0});
  }
  /// Ends the sleep of progress(), or the next one. From any thread.
  void wake() noexcept { dialler_.wake(); }

 protected:
  /// Of ``connections`` some may be missing. ``headers``: how many may come before they are read;
  /// one, where payloads follow them.
  End(std::vector<std::unique_ptr<Connection>> connections, Waiting waiting, std::size_t headers,
      Dial dial, Nanos patience);

  bool room(std::size_t path) const;
  /// Once there is room for it.
  void say(std::size_t path, const Header& header);
  /// A header and its payload; the tag of the payload, for sent(). Only while there is room().
  std::uint64_t send(std::size_t path, const Header& header, std::span<const std::byte> payload);
  /// Within heard(): the payload that follows goes there.
  void receive(std::size_t path, std::span<std::byte> payload);
  bool redirect(std::size_t path, Direction direction, std::uint64_t tag,
                std::span<std::byte> instead);
  /// What is sent and received over any path will be parts of ``memory``, until it is taken back.
  void lend(std::span<const std::byte> memory);
  void take_back(std::span<const std::byte> memory);
  /// The same for one path. Its device may turn out to be gone: then the path is lost.
  void lend(std::size_t path, std::span<const std::byte> memory);
  void take_back(std::size_t path, std::span<const std::byte> memory);
  /// Fences it: no buffer that was given to this path is used any more.
  void close(std::size_t path);
  /// All of them: for destructors, whose buffers would go before the connections otherwise.
  void close_all();
  bool ask(std::size_t path) { return dialler_.ask(path); }
  /// Until ``over()``. Throws Error: kDeadline with what is ``missing()``, kStopped, and what
  /// progress() throws.
  template <typename Over, typename Missing>
  void drive(const Watch& watch, const Over& over, const Missing& missing);
  /// All that was to be said on this path has left.
  bool quiet(std::size_t path) const;
  void note(const Event& event);

  virtual void heard(std::size_t path, const Header& header, Nanos at) = 0;
  virtual void landed(std::size_t path, Nanos at) = 0;  ///< The payload asked for by receive().
  virtual void sent(std::size_t path, std::uint64_t tag) = 0;
  /// It was closed already.
  virtual void broken(std::size_t path, Cause cause, int code, Nanos at) = 0;
  virtual void joined(std::size_t path, Nanos at) = 0;
  virtual void refused(std::size_t path, int code, Nanos at) = 0;
  /// What is due now; called often.
  virtual void act(Nanos at) = 0;
  /// When act() has something to do though nothing happens.
  virtual Nanos due() const = 0;

  static constexpr std::uint64_t kPayload = std::uint64_t{1} << 62;  ///< Tag of receive().

 private:
  struct Path {
    std::vector<HeaderBytes> coming;
    std::array<HeaderBytes, Connection::kDepth> leaving;
    std::uint64_t free = ~std::uint64_t{0};  // which of them are
    std::size_t sends = 0;                   // operations under way
    std::deque<Header> unsaid;
    std::uint64_t age = 0;                   // of its connections
    std::unique_ptr<Connection> connection;  // last: it goes before the buffers that it knows
  };

  bool pass();
  bool pass(std::size_t path);
  bool handle(std::size_t path, const Completion& done);
  void post_header(Path& path, const Header& header);
  void say_what_is_left(Path& path);
  void open(Path& path);
  void respond();
  void lose(std::size_t path, Cause cause, int code, Nanos at);

  Waiting waiting_;
  std::vector<std::span<const std::byte>> lent_;
  std::vector<std::unique_ptr<Path>> paths_;
  std::deque<Event> events_;
  std::uint64_t noted_ = 0;
  std::uint64_t tags_ = 0;
  std::vector<pollfd> fds_;
  Dialler dialler_;  // last: its threads end first
};

template <typename Over, typename Missing>
void End::drive(const Watch& watch, const Over& over, const Missing& missing) {
  while (!over()) {
    try {
      watch.check();
    } catch (const Error& error) {
      if (error.fault() != Fault::kDeadline) throw;
      throw Error(Fault::kDeadline, missing());
    }
    progress(watch.slice_end());
  }
}

}  // namespace cwai::multipath

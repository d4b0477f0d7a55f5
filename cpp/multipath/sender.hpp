// The sending end: transfers go out over all paths, and each is done when the other end has all of
// it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "multipath/end.hpp"
#include "multipath/scheduler.hpp"

namespace cwai::multipath {

struct SenderSpec {
  SchedulerSpec scheduler = {};
  HealthSpec health = {};
  Waiting waiting = Waiting::kBlock;
  bool resend = true;  ///< False: the first path that breaks or stalls ends it all.
};

class Sender final : public End {
 public:
  /// ``dial`` may be empty: what breaks stays broken. Throws Error(kInvalid).
  Sender(const SenderSpec& spec, std::vector<std::unique_ptr<Connection>> connections, Dial dial);
  ~Sender() override { close_all(); }

  /// ``memory``, of which parts will be posted, is registered with the NICs of all paths until
  /// release(), and not anew for each transfer. Throws Error(kDevice) when one refuses it.
  void hold(std::span<const std::byte> memory) { lend(memory); }
  void release(std::span<const std::byte> memory) { take_back(memory); }

  /// ``data``, which may be empty, must stay as it is until done(). Its number: 0, 1, 2 … Throws
  /// Error(kDisagreed) when it is larger than the buffer that waits for it. ``ours`` false: memory
  /// that NICs reach and the CPU does not, as a GPU's; it has no checksum of ours.
  std::uint64_t post(std::span<const std::byte> data, bool ours = true);
  /// A buffer of the other end.
  struct Room {
    std::size_t bytes;
    std::uint32_t tag;
  };
  /// The buffer for a transfer that did not begin, once the other end has told of it.
  std::optional<Room> room_for(std::uint64_t transfer) const;
  /// The other end has all of it, and ``data`` is not read any more.
  bool done(std::uint64_t transfer) const;
  /// When the other end was ready for it, and it began; 0 before that. Of one that is done: until
  /// the next progress().
  Nanos begun(std::uint64_t transfer) const;
  /// Bytes of it that the other end has.
  std::size_t delivered(std::uint64_t transfer) const;

  /// Until done(). Throws Error: kDeadline with what was delivered, kStopped, kDisagreed when the
  /// other end's buffer is too small, kTransfer when nothing is to be sent again and a path broke.
  void wait(std::uint64_t transfer, const Watch& watch);
  /// Tells the other end that this was all, and waits for it to have heard it, for some seconds at
  /// most: there is nothing left to lose. Throws as wait() does.
  void finish(const Watch& watch);

  const Scheduler& scheduler() const noexcept { return scheduler_; }
  const PathHealth& health(std::size_t path) const { return health_[path]; }

  /// Bytes that a path delivered first, in steps of step() since start().
  const std::vector<std::uint64_t>& timeline(std::size_t path) const { return timelines_[path]; }
  /// When the other end was ready for the first transfer; before, when this end was made.
  Nanos start() const noexcept { return start_; }
  Nanos step() const noexcept { return step_; }

 private:
  struct Transfer {
    std::span<const std::byte> data;
    bool ours;
    Nanos begun = 0;
    std::size_t reading = 0;  // payloads under way that read it
    bool complete = false;
  };
  struct Payload {
    std::uint64_t tag;
    std::uint64_t transfer;
    std::size_t size;
    std::vector<std::byte> copy = {};  // what it reads since the transfer was complete
  };

  void heard(std::size_t path, const Header& header, Nanos at) override;
  void landed(std::size_t, Nanos) override {}
  void sent(std::size_t path, std::uint64_t tag) override;
  void broken(std::size_t path, Cause cause, int code, Nanos at) override;
  void joined(std::size_t path, Nanos at) override;
  void refused(std::size_t path, int code, Nanos at) override;
  void act(Nanos at) override;
  Nanos due() const override;

  Transfer* find(std::uint64_t transfer);
  void start_what_is_ready();
  void complete(std::uint64_t transfer, Nanos at);
  void let_go(Transfer& transfer);
  void forget_payloads(std::size_t path);
  void fill(Nanos at);
  void mark(std::size_t path, Nanos at, std::uint64_t bytes);
  void change(std::size_t path, PathState before, Cause cause, int code, Nanos at);

  SenderSpec spec_;
  Scheduler scheduler_;
  std::vector<PathHealth> health_;
  std::deque<Transfer> transfers_;
  std::uint64_t first_ = 0;
  std::uint64_t next_ = 0;  // the first that is not started
  std::map<std::uint64_t, Room> ready_;
  std::vector<std::deque<Payload>> payloads_;
  std::vector<bool> bye_;
  bool finishing_ = false;
  bool redials_ = false;  // what broke since
  Nanos start_;
  Nanos step_ = 10'000'000;
  std::vector<std::vector<std::uint64_t>> timelines_;
};

}  // namespace cwai::multipath

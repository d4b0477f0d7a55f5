// The receiving end: what comes over any path goes where it belongs, once.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "multipath/end.hpp"
#include "multipath/ledger.hpp"

namespace cwai::multipath {

struct ReceiverSpec {
  std::size_t block = 64 << 10;  ///< As the sending end has it.
  Waiting waiting = Waiting::kBlock;
  /// After so much silence a buffer is announced over another path; then after twice as much, and
  /// so on, up to kLongestPause.
  Nanos remind = 100'000'000;
  static constexpr Nanos kLongestPause = 2 * kSecond;
};

/// What came over a path, since the beginning.
struct ArrivalCounts {
  std::uint64_t bytes = 0;    ///< Payload.
  std::uint64_t twice = 0;    ///< Of that, what was there already.
  std::uint32_t corrupt = 0;  ///< Runs whose checksum was wrong.
  std::uint32_t broken = 0;   ///< Connections that ended in the middle.
};

class Receiver final : public End {
 public:
  /// ``dial`` accepts; it is called whenever a path waits for nobody. It may be empty.
  Receiver(const ReceiverSpec& spec, std::vector<std::unique_ptr<Connection>> connections,
           Dial dial);
  ~Receiver() override { close_all(); }

  /// ``memory``, of which parts will be posted, is registered with the NICs of all paths until
  /// release(), and not anew for each transfer. Throws Error(kDevice) when one refuses it.
  void hold(std::span<const std::byte> memory) { lend(memory); }
  void release(std::span<const std::byte> memory) { take_back(memory); }

  /// The n-th buffer is for the n-th transfer of the other end, which may be smaller; it is told
  /// ``tag``. Its number: 0, 1, 2 … ``ours`` false: memory that NICs reach and the CPU does not, as
  /// a GPU's; what comes is not held against a checksum of ours.
  std::uint64_t post(std::span<std::byte> data, std::uint32_t tag = 0, bool ours = true);
  /// All of it is there, and nobody writes to it any more.
  bool done(std::uint64_t transfer) const;
  /// Bytes of a transfer that is done, of the last kSizes. Throws Error(kInvalid).
  std::size_t size(std::uint64_t transfer) const;
  static constexpr std::size_t kSizes = 4096;

  /// Until done(). Throws Error: kDeadline with what has come, kStopped.
  void wait(std::uint64_t transfer, const Watch& watch);
  /// Until the other end has said that this was all. Throws as wait() does.
  void finish(const Watch& watch);

  const ArrivalCounts& counts(std::size_t path) const { return counts_[path]; }

 private:
  struct Incoming {
    std::span<std::byte> data;
    std::unique_ptr<Ledger> ledger;  // once its size is known
    std::size_t total = 0;
    Nanos told = 0;
    Nanos pause = 0;  // until it is told again
    std::uint32_t tag = 0;
    bool ours = true;
    bool complete = false;
  };
  // What a path is receiving.
  struct Landing {
    Header header;
    std::byte* at = nullptr;
    bool in_place = false;
    std::vector<std::byte> aside;
    bool under_way = false;
  };

  void heard(std::size_t path, const Header& header, Nanos at) override;
  void landed(std::size_t path, Nanos at) override;
  void sent(std::size_t, std::uint64_t) override {}
  void broken(std::size_t path, Cause cause, int code, Nanos at) override;
  void joined(std::size_t path, Nanos at) override;
  void refused(std::size_t path, int code, Nanos at) override;
  void act(Nanos at) override;
  Nanos due() const override;

  Incoming* find(std::uint64_t transfer);
  bool fits(const Header& header);
  /// Room beside for what the path is receiving; false: the path was lost for it.
  bool make_room(std::size_t path);
  void turn_aside(std::size_t path, Ledger& ledger, Nanos at);
  bool claim(std::size_t path, const Run& run, Incoming& incoming, Nanos at);
  void announce(Nanos at);

  ReceiverSpec spec_;
  std::deque<Incoming> incoming_;
  std::uint64_t first_ = 0;
  std::deque<std::size_t> sizes_;  // of those before first_
  std::vector<Landing> landings_;
  std::vector<Nanos> ask_at_;  // paths for which nobody waits
  std::vector<ArrivalCounts> counts_;
  std::size_t told_last_ = 0;
  std::optional<std::size_t> bye_;  // the path on which it was said
};

}  // namespace cwai::multipath

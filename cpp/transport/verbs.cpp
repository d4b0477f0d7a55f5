#include "transport/verbs.hpp"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"
#include "transport/ring.hpp"
#include "transport/tcp.hpp"  // kMaxLanes
#include "verbs/endpoint.hpp"

namespace cwai {
namespace {

constexpr std::size_t kPageSize = 4096;
constexpr unsigned kAccess = verbs::kAccessLocalWrite | verbs::kAccessRemoteWrite;

// Where a buffer is that the other end posted for receiving.
struct Landing {
  std::uint64_t address;
  std::uint32_t key;
  std::uint32_t size;
};

// A letter: what 1, then either (kDescribe) number 1, zero 2, key 4, address 8, size 4, zero 4: a
// landing, posted now and called ``number`` from now on; or (kPosted) count 1, zero 2, and as many
// numbers of landings that were posted in this order.
constexpr std::size_t kLetterSize = 24;
constexpr std::byte kDescribe{1};
constexpr std::byte kPosted{2};
constexpr std::size_t kInLetter = 20;
// A notice holds four numbers of landings; kNone fills it up.
constexpr std::size_t kInNotice = 4;
constexpr std::uint8_t kNone = 0xFF;
constexpr std::size_t kNumbers = 255;

// ------------------------------------------------------------------------------------- connection

class VerbsConnection final : public Connection {
 public:
  VerbsConnection(std::unique_ptr<Connection> control, const VerbsSpec& spec, Waiting waiting,
                  const Watch& watch)
      : control_(std::move(control)),
        waiting_(waiting),
        endpoint_(spec.path),
        dma_bufs_(spec.dma_bufs),
        remote_(control_->remote()),
        lanes_(static_cast<std::size_t>(spec.lanes)) {
    const std::string& device = spec.path.device;
    channel_.reset(verbs::made(library_.create_comp_channel(&endpoint_.context()),
                               device + " create_comp_channel"));
    const auto entries = static_cast<int>(lanes_.size() * (kSends + kArrivals));
    cq_.reset(
        verbs::made(library_.create_cq(&endpoint_.context(), entries, nullptr, channel_.get(), 0),
                    device + " create_cq"));
    fd_ = channel_fd(channel_.get());
    for (const int fd : {fd_, endpoint_.context().async_fd})
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    letters_.resize(lanes_.size() * kSlots * kLetterSize);
    letters_mr_ = region(letters_.data(), letters_.size(), letters_regions_).get();
    for (std::size_t i = 0; i < lanes_.size(); ++i) make_queue_pair(i);
    std::vector<verbs::QpPtr> queue_pairs;
    queue_pairs.reserve(lanes_.size());
    for (Lane& lane : lanes_) queue_pairs.push_back(std::move(lane.queue_pair));
    endpoint_.join(queue_pairs, *control_, watch);
    for (Lane& lane : lanes_) lane.queue_pair = std::move(queue_pairs[lane.index]);
    // From now on the other end says nothing there: what comes is its end.
    control_->post_receive(0, last_word_, 0);
  }

  ~VerbsConnection() override {
    for (Lane& lane : lanes_) break_lane(lane, ECANCELED);
  }

  void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) override {
    Lane& l = at(lane);
    if (l.sends.full() || fenced_) throw Error(Fault::kInvalid, "post");
    // The one cast: a send only ever reads through this pointer.
    l.sends.push({.data = const_cast<std::byte*>(data.data()), .size = data.size(), .tag = tag});
    issue(l);
  }

  void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) override {
    Lane& l = at(lane);
    if (l.receives.full() || fenced_) throw Error(Fault::kInvalid, "post");
    // Told by the next message, or when this end waits.
    const std::uint8_t number = l.error == 0 ? announce(l, data) : kNone;
    l.receives.push({.data = data.data(), .size = data.size(), .tag = tag, .number = number});
  }

  // Part of what was lent before is registered with it, and all of it until both are taken back.
  void lend(std::span<const std::byte> memory) override {
    auto found = lent_as(memory);
    if (found == lent_.end())
      found = lent_.emplace(range_of(memory), Lent{.region = registered(memory)}).first;
    ++found->second.count;
  }

  void take_back(std::span<const std::byte> memory) override {
    Range all = range_of(memory);
    if (const auto found = lent_as(memory); found != lent_.end()) {
      if (--found->second.count > 0) return;
      all = found->first;
      lent_.erase(found);
    }
    for (Lane& lane : lanes_)
      lane.ours.erase(lane.ours.lower_bound({reinterpret_cast<std::uintptr_t>(all.first), 0}),
                      lane.ours.lower_bound({reinterpret_cast<std::uintptr_t>(all.second), 0}));
    // Of pages that it has to itself; others are shared with what stays.
    std::erase_if(regions_, [&](const auto& region) {
      return region.first.first >= all.first && region.first.second <= all.second;
    });
  }

  std::size_t poll(std::span<Completion> out) override {
    std::size_t n = 0;
    for (Lane& lane : lanes_) {
      if (lane.error == 0) tell(lane);
      if (lane.error != 0) n += broken(lane, out.subspan(n));
    }
    for (int got = kBatch; n < out.size();) {
      if (looked_at_ < came_.size()) {
        const verbs::Wc done = came_[looked_at_];
        ++looked_at_;
        n += arrived(done, out[n]);
        continue;
      }
      if (got < kBatch) break;  // those were all that there are
      got = collect();
      if (got < 0) throw Error(Fault::kTransfer, remote_, -got);
    }
    if (n == 0 && closed_) {  // what the other end wrote before it left has been seen
      for (Lane& lane : lanes_) {
        break_lane(lane, ECONNRESET);
        n += broken(lane, out.subspan(n));
      }
    }
    if (n == 0 && ++turns_ % kTurns == 0) look_around();
    return n;
  }

  Nanos arm(std::vector<pollfd>& into) override {
    endpoint_.context().ops.req_notify_cq(cq_.get(), 0);
    for (const int fd : {fd_, endpoint_.context().async_fd})
      into.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    return control_->arm(into);
  }
  void disarm() override {
    control_->disarm();
    take_events();
    look_around();
  }
  // What a NIC was told of it reads and writes until it is done.
  bool redirect(int, Direction, std::uint64_t, std::span<std::byte>) override { return false; }

  std::size_t wait(std::span<Completion> out, Nanos until) override {
    for (;;) {
      if (const std::size_t n = waiting_ == Waiting::kSpin ? spin(out) : sleep(out, until); n > 0)
        return n;
      if (now() >= until) return poll(out);
    }
  }

  void fence() override {
    for (Lane& lane : lanes_) break_lane(lane, ECANCELED);
    forget();
    fenced_ = true;
  }

  // Between two runs nothing is pending, and the buffers of the last one may be gone: what was
  // registered of them is let go.
  void prepare(Goal) override {
    const bool idle = std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
      return lane.sends.empty() && lane.receives.empty();
    });
    if (idle) forget();
  }

  std::size_t useful_depth() const noexcept override { return 16; }
  int lanes() const noexcept override { return static_cast<int>(lanes_.size()); }
  const char* transport() const noexcept override { return "verbs"; }
  std::string local() const override { return endpoint_.name(); }
  std::string remote() const override { return remote_; }

 private:
  static constexpr int kBatch = 16;
  // A NIC flushes a queue pair in microseconds; one that has not by then is not going to.
  static constexpr Nanos kFlush = 50'000'000;
  // How often nothing came until it is asked whether the other end or the device has said
  // something.
  static constexpr unsigned kTurns = 256;
  // In flight on a queue pair: our messages and the landings that we announce; what arrives: their
  // landings and their notices.
  static constexpr std::size_t kSends = 2 * kDepth;
  static constexpr std::size_t kArrivals = 2 * kDepth;
  static constexpr std::size_t kSlots = kArrivals + kDepth;  // letters in, letters out
  enum Kind : std::uint64_t { kMessage, kLetter, kArrival };

  struct Operation {
    std::byte* data;
    std::size_t size;
    std::uint64_t tag;
    std::uint8_t number = kNone;  // what a buffer posted for receiving is called
    // That it is sent from. It may have been lent for another, and be taken back before.
    std::shared_ptr<verbs::Mr> region = nullptr;
  };
  using Place = std::pair<std::uint64_t, std::size_t>;  // address and size
  struct Lane {
    std::size_t index = 0;
    verbs::QpPtr queue_pair;
    Ring<Operation, kDepth> sends;  // posted; the first ``issued`` of them are with the NIC
    std::size_t issued = 0;
    Ring<Operation, kDepth> receives;
    Ring<std::uint8_t, kDepth> landings;  // where the next messages may go
    std::array<Landing, kNumbers> theirs{};
    std::map<Place, std::uint8_t> ours;            // landings described
    std::array<Place, kNumbers> described{};       // the last of each number
    std::uint8_t last_number = kNumbers - 1;       // that was given
    std::array<std::uint8_t, kNumbers> waiting{};  // how often each of those is posted now
    Ring<std::uint8_t, kDepth>
        untold;  // of those the ones posted that the other end is not told of
    std::size_t next_letter = 0;
    std::size_t outstanding = 0;  // requests that the NIC has
    int error = 0;
  };
  // What is registered, by its first byte and its end.
  using Range = std::pair<const std::byte*, const std::byte*>;
  using Regions = std::map<Range, std::shared_ptr<verbs::Mr>>;
  struct Lent {
    std::shared_ptr<verbs::Mr> region;  // never null
    int count = 0;
  };

  // The layout of a completion channel: the context, then its file descriptor.
  static int channel_fd(const verbs::CompChannel* channel) {
    int fd = -1;
    std::memcpy(&fd, reinterpret_cast<const std::byte*>(channel) + sizeof(void*), sizeof fd);
    return fd;
  }

  Lane& at(int lane) {
    if (lane < 0 || lane >= lanes()) throw Error(Fault::kInvalid, "lane " + std::to_string(lane));
    return lanes_[static_cast<std::size_t>(lane)];
  }

  // ------------------------------------------------------------------------------------ setting up

  void make_queue_pair(std::size_t index) {
    Lane& lane = lanes_[index];
    lane.index = index;
    verbs::QpInitAttr wanted{};
    wanted.send_cq = cq_.get();
    wanted.recv_cq = cq_.get();
    wanted.cap = {.max_send_wr = kSends,
                  .max_recv_wr = kArrivals,
                  .max_send_sge = 1,
                  .max_recv_sge = 1,
                  .max_inline_data = 0};
    wanted.sq_sig_all = 1;
    lane.queue_pair = endpoint_.queue_pair(wanted);
    for (std::size_t slot = 0; slot < kArrivals; ++slot) await_letter(lane, slot);
  }

  // -------------------------------------------------------------------------------------- memory

  static Range range_of(std::span<const std::byte> memory) {
    return {memory.data(), memory.data() + memory.size()};
  }

  // What holds all of [data, data + size), or the end.
  template <typename Map>
  static typename Map::iterator holding(Map& map, const std::byte* data, std::size_t size) {
    constexpr int kLook = 4;  // of those that begin before it the nearest; another one costs little
    auto found = map.upper_bound({data, reinterpret_cast<const std::byte*>(UINTPTR_MAX)});
    for (int i = 0; i < kLook && found != map.begin(); ++i) {
      --found;
      if (data + size <= found->first.second) return found;
    }
    return map.end();
  }

  std::map<Range, Lent>::iterator lent_as(std::span<const std::byte> memory) {
    const auto found = lent_.find(range_of(memory));
    return found != lent_.end() ? found : holding(lent_, memory.data(), memory.size());
  }

  verbs::MrPtr registered(std::span<const std::byte> memory) const {
    const auto part = dma_bufs_ ? dma_bufs_->find(memory) : std::nullopt;
    if (!part)
      return endpoint_.region(reinterpret_cast<std::uintptr_t>(memory.data()), memory.size(),
                              kAccess);
    errno = 0;
    auto region = endpoint_.region_of(part->fd, part->address, part->size, kAccess, part->offset);
    if (region == nullptr)
      throw Error(Fault::kDevice, endpoint_.name() + " dma-buf", errno != 0 ? errno : EOPNOTSUPP);
    return region;
  }

  // The registration that holds all of [data, data + size); made when there is none yet. Whole
  // pages are registered then: buffers next to one another share them.
  std::shared_ptr<verbs::Mr> region(const std::byte* data, std::size_t size, Regions& regions) {
    if (const auto lent = holding(lent_, data, size); lent != lent_.end())
      return lent->second.region;
    if (const auto found = holding(regions, data, size); found != regions.end())
      return found->second;
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const std::uintptr_t start = address & ~(kPageSize - 1);
    const std::uintptr_t end = (address + size + kPageSize - 1) & ~(kPageSize - 1);
    auto* first = reinterpret_cast<std::byte*>(start);
    const Range range{first, first + (end - start)};
    return regions[range] = endpoint_.region(start, end - start, kAccess);
  }

  // -------------------------------------------------------------------------------------- posting

  std::byte* letter(const Lane& lane, std::size_t slot) {
    return letters_.data() + (lane.index * kSlots + slot) * kLetterSize;
  }

  std::uint64_t work(const Lane& lane, Kind kind, std::size_t slot = 0) const {
    return (static_cast<std::uint64_t>(lane.index) << 32) | (kind << 24) | slot;
  }

  void await_letter(Lane& lane, std::size_t slot) {
    verbs::Sge where{.addr = reinterpret_cast<std::uintptr_t>(letter(lane, slot)),
                     .length = kLetterSize,
                     .lkey = letters_mr_->lkey};
    verbs::RecvWr request{
        .wr_id = work(lane, kArrival, slot), .next = nullptr, .sg_list = &where, .num_sge = 1};
    verbs::RecvWr* bad = nullptr;
    const int failed = endpoint_.context().ops.post_recv(lane.queue_pair.get(), &request, &bad);
    if (failed == 0)
      ++lane.outstanding;
    else
      break_lane(lane, failed);
  }

  // Of what was not lent.
  void forget() {
    regions_.clear();
    for (Lane& lane : lanes_) lane.ours.clear();
  }

  // Where the next message of the other end may go: by its number if it is described already.
  // Returns the number.
  std::uint8_t announce(Lane& lane, std::span<std::byte> data) {
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(data.data()));
    const auto known = lane.ours.find({address, data.size()});
    if (known != lane.ours.end()) {
      ++lane.waiting[known->second];
      lane.untold.push(known->second);
      return known->second;
    }
    tell(lane);  // letters keep the order in which buffers were posted
    const std::uint32_t key = region(data.data(), data.size(), regions_)->rkey;
    const std::uint8_t number = free_number(lane);
    lane.described[number] = {address, data.size()};
    lane.ours[lane.described[number]] = number;
    ++lane.waiting[number];
    write_letter(lane, [&](std::byte* at) {
      put(at, std::to_integer<std::uint8_t>(kDescribe));
      put(at, number);
      put(at, std::uint16_t{0});
      put(at, key);
      put(at, address);
      put(at, static_cast<std::uint32_t>(data.size()));
    });
    return number;
  }

  // A number by which no buffer waits at the other end: there are more of them than can wait.
  static std::uint8_t free_number(Lane& lane) {
    static_assert(kDepth < kNumbers);
    std::uint8_t& number = lane.last_number;
    do number = static_cast<std::uint8_t>((number + 1U) % kNumbers);
    while (lane.waiting[number] != 0);
    const auto before = lane.ours.find(lane.described[number]);
    if (before != lane.ours.end() && before->second == number) lane.ours.erase(before);
    return number;
  }

  // Tells what no message has taken along.
  void tell(Lane& lane) {
    while (lane.error == 0 && !lane.untold.empty()) {
      write_letter(lane, [&](std::byte* at) {
        const std::size_t count = std::min(lane.untold.size(), kInLetter);
        put(at, std::to_integer<std::uint8_t>(kPosted));
        put(at, static_cast<std::uint8_t>(count));
        put(at, std::uint16_t{0});
        for (std::size_t i = 0; i < count; ++i) {
          put(at, lane.untold.front());
          lane.untold.pop();
        }
      });
    }
  }

  template <typename Write>
  void write_letter(Lane& lane, Write write) {
    std::byte* at = letter(lane, kArrivals + lane.next_letter++ % kDepth);
    write(at);
    verbs::Sge what{.addr = reinterpret_cast<std::uintptr_t>(at),
                    .length = kLetterSize,
                    .lkey = letters_mr_->lkey};
    verbs::SendWr request{};
    request.wr_id = work(lane, kLetter);
    request.sg_list = &what;
    request.num_sge = 1;
    request.opcode = verbs::kWrSend;
    post(lane, request);
  }

  // Hands the NIC as many messages as there are landings for.
  void issue(Lane& lane) {
    while (lane.error == 0 && lane.issued < lane.sends.size() && !lane.landings.empty()) {
      Operation& next = lane.sends[lane.issued];
      const Landing& landing = lane.theirs[lane.landings.front()];
      if (landing.size != next.size) return break_lane(lane, EMSGSIZE);
      lane.landings.pop();
      next.region = region(next.data, next.size, regions_);
      verbs::Sge what{.addr = reinterpret_cast<std::uintptr_t>(next.data),
                      .length = static_cast<std::uint32_t>(next.size),
                      .lkey = next.region->lkey};
      verbs::SendWr request{};
      request.wr_id = work(lane, kMessage);
      request.sg_list = &what;
      request.num_sge = 1;
      request.opcode = verbs::kWrRdmaWriteWithImm;
      request.imm_data = notice(lane);
      request.rdma = {.remote_addr = landing.address, .rkey = landing.key};
      ++lane.issued;
      post(lane, request);
    }
  }

  // What a message takes along. The bytes go as they lie in memory: the first number first.
  static std::uint32_t notice(Lane& lane) {
    std::array<std::uint8_t, kInNotice> numbers{};
    for (std::uint8_t& number : numbers) {
      number = lane.untold.empty() ? kNone : lane.untold.front();
      if (number != kNone) lane.untold.pop();
    }
    std::uint32_t packed = 0;
    std::memcpy(&packed, numbers.data(), sizeof packed);
    return packed;
  }

  bool posted(Lane& lane, std::uint8_t number) {
    if (number >= kNumbers || lane.landings.full()) return false;
    lane.landings.push(number);
    return true;
  }

  // False when it is none of ours.
  bool read_notice(Lane& lane, std::uint32_t packed) {
    std::array<std::uint8_t, kInNotice> numbers{};
    std::memcpy(numbers.data(), &packed, sizeof packed);
    return std::all_of(numbers.begin(), numbers.end(), [&](std::uint8_t number) {
      return number == kNone || posted(lane, number);
    });
  }

  bool read_letter(Lane& lane, const std::byte* at) {
    const auto what = std::byte{take<std::uint8_t>(at)};
    const auto count = take<std::uint8_t>(at);
    take<std::uint16_t>(at);
    if (what == kDescribe && count < kNumbers) {
      const auto key = take<std::uint32_t>(at);
      const auto address = take<std::uint64_t>(at);
      lane.theirs[count] = {.address = address, .key = key, .size = take<std::uint32_t>(at)};
      return posted(lane, count);
    }
    if (what != kPosted || count > kInLetter) return false;
    bool good = true;
    for (std::size_t i = 0; i < count; ++i) good = good && posted(lane, take<std::uint8_t>(at));
    return good;
  }

  void post(Lane& lane, verbs::SendWr& request) {
    verbs::SendWr* bad = nullptr;
    const int failed = endpoint_.context().ops.post_send(lane.queue_pair.get(), &request, &bad);
    if (failed == 0)
      ++lane.outstanding;
    else
      break_lane(lane, failed);
  }

  // ------------------------------------------------------------------------------------ completing

  // Takes in what the NIC has completed, at most kBatch; returns how many, below 0 for an error.
  int collect() {
    if (looked_at_ == came_.size()) {
      came_.clear();
      looked_at_ = 0;
    }
    std::array<verbs::Wc, kBatch> done;
    const int got = endpoint_.context().ops.poll_cq(cq_.get(), kBatch, done.data());
    if (got > 0) came_.insert(came_.end(), done.begin(), done.begin() + got);
    return got;
  }

  // What one completion of the NIC means; returns 1 when it completes an operation.
  std::size_t arrived(const verbs::Wc& done, Completion& out) {
    Lane& lane = lane_of(done);
    --lane.outstanding;
    if (lane.error != 0) return 0;  // of a broken lane all that is pending completes by itself
    if (done.status != verbs::kWcSuccess) {
      const int error = meaning(done.status);
      if (!misconfigured(error)) look_around();  // the device may say why
      break_lane(lane, error);
      return 0;
    }
    switch (static_cast<Kind>((done.wr_id >> 24) & 0xFFU)) {
      case kMessage:
        --lane.issued;
        return completed(lane, lane.sends, Direction::kSend, out);
      case kLetter:
        return 0;
      case kArrival:
        break;
    }
    const std::size_t slot = done.wr_id & 0xFFFFFFU;
    const bool message = done.opcode == verbs::kWcRecvRdmaWithImm;
    const bool good = message
                          ? read_notice(lane, done.imm_data) && !lane.receives.empty()
                          : done.byte_len == kLetterSize && read_letter(lane, letter(lane, slot));
    if (!good) {
      break_lane(lane, EPROTO);
      return 0;
    }
    if (message) --lane.waiting[lane.receives.front().number];
    const std::size_t n = message ? completed(lane, lane.receives, Direction::kReceive, out) : 0;
    await_letter(lane, slot);
    issue(lane);
    return n;
  }

  static std::size_t completed(Lane& lane, Ring<Operation, kDepth>& queue, Direction direction,
                               Completion& out) {
    const Operation operation = std::exchange(queue.front(), Operation{});
    queue.pop();
    out = {.tag = operation.tag,
           .bytes = operation.size,
           .time = now(),
           .status = 0,
           .lane = static_cast<int>(lane.index),
           .direction = direction};
    return 1;
  }

  static int meaning(int status) {
    switch (status) {
      case verbs::kWcRetryExceeded:
        return ETIMEDOUT;  // the path, or the other end, is gone
      case verbs::kWcWrFlush:
        return ECANCELED;
      case verbs::kWcLocalProtection:  // these three: see misconfigured()
        return EFAULT;
      case verbs::kWcRemoteInvalidRequest:
        return EBADR;
      case verbs::kWcRemoteAccess:
        return EACCES;
      default:
        return EIO;
    }
  }

  Lane& lane_of(const verbs::Wc& done) { return lanes_[done.wr_id >> 32]; }

  // From here on nothing moves on this lane: the NIC has let go of every buffer when this returns.
  // What it was posted completes here, not there.
  void break_lane(Lane& lane, int error) {
    if (lane.error != 0) return;
    lane.error = error;
    flush(lane);
    lane.queue_pair.reset();
  }

  // That a queue pair is destroyed does not promise that its NIC is through with what it had under
  // way (IBTA vol. 1, 10.2.4.4); that all of it was flushed does. A device that is gone flushes
  // nothing, and writes nothing.
  void flush(Lane& lane) {
    if (!endpoint_.halt(lane.queue_pair.get())) return;
    const Nanos until = now() + kFlush;
    do {
      const auto rest = came_.begin() + static_cast<std::ptrdiff_t>(looked_at_);
      const auto flushed = std::remove_if(
          rest, came_.end(), [&](const verbs::Wc& done) { return &lane_of(done) == &lane; });
      lane.outstanding -= static_cast<std::size_t>(came_.end() - flushed);
      came_.erase(flushed, came_.end());
    } while (lane.outstanding > 0 && collect() >= 0 && now() < until);
  }

  std::size_t broken(Lane& lane, std::span<Completion> out) {
    std::size_t n = 0;
    const auto drain = [&](Ring<Operation, kDepth>& queue, Direction direction) {
      for (; n < out.size() && !queue.empty(); ++n) {
        completed(lane, queue, direction, out[n]);
        out[n].bytes = 0;
        out[n].status = lane.error;
      }
    };
    drain(lane.sends, Direction::kSend);
    drain(lane.receives, Direction::kReceive);
    return n;
  }

  // -------------------------------------------------------------------------------------- waiting

  std::size_t spin(std::span<Completion> out) {
    // The clock is looked at now and then only.
    for (unsigned turn = 0; turn < kTurns; ++turn)
      if (const std::size_t n = poll(out); n > 0) return n;
    return 0;
  }

  std::size_t sleep(std::span<Completion> out, Nanos until) {
    if (const std::size_t n = poll(out); n > 0) return n;
    endpoint_.context().ops.req_notify_cq(cq_.get(), 0);
    if (const std::size_t n = poll(out); n > 0) return n;  // it may have come in between
    const Nanos left = std::clamp<Nanos>(until - now(), 0, kSlice);
    pollfd entry{.fd = fd_, .events = POLLIN, .revents = 0};
    ::poll(&entry, 1, static_cast<int>((left + 999'999) / 1'000'000));
    take_events();
    look_around();
    return poll(out);
  }

  void take_events() {
    verbs::Cq* which = nullptr;
    void* context = nullptr;
    while (library_.get_cq_event(channel_.get(), &which, &context) == 0)
      library_.ack_cq_events(cq_.get(), 1);
  }

  // What is said beside the completions.
  void look_around() {
    Completion done{};
    closed_ = closed_ || control_->poll({&done, 1}) > 0;
    verbs::AsyncEvent event{};
    while (library_.get_async_event(&endpoint_.context(), &event) == 0) {
      library_.ack_async_event(&event);  // before its queue pair goes, which would wait for it
      heed(event);
    }
  }

  // What is no fault of this path (another port, a queue pair that is gone) changes nothing.
  void heed(const verbs::AsyncEvent& event) {
    const auto break_all = [&](int error) {
      for (Lane& lane : lanes_) break_lane(lane, error);
    };
    const auto break_one = [&](int error) {
      for (Lane& lane : lanes_)
        if (lane.queue_pair.get() == event.element.qp) break_lane(lane, error);
    };
    switch (event.type) {
      case verbs::kEventQpFatal:
        return break_one(EIO);
      case verbs::kEventQpRequestError:
        return break_one(EBADR);
      case verbs::kEventQpAccessError:
        return break_one(EACCES);
      case verbs::kEventCqError:
        return break_all(EIO);
      case verbs::kEventDeviceFatal:
        return break_all(ENODEV);
      case verbs::kEventPortError:
        if (event.element.port == endpoint_.spec().port) break_all(ENETDOWN);
        return;
      case verbs::kEventGidChange:
        if (!endpoint_.has_its_gid()) break_all(EADDRNOTAVAIL);
        return;
      default:
        return;
    }
  }

  const verbs::Library& library_ = verbs::Library::get();
  std::unique_ptr<Connection> control_;
  Waiting waiting_;
  // In the order in which they are made; they go in the opposite one.
  verbs::Endpoint endpoint_;
  std::shared_ptr<const verbs::DmaBufs> dma_bufs_;
  std::string remote_;
  verbs::ChannelPtr channel_;
  verbs::CqPtr cq_;
  int fd_ = -1;
  std::vector<std::byte> letters_;  // landings that come and that go, of all lanes
  Regions letters_regions_;
  verbs::Mr* letters_mr_ = nullptr;
  Regions regions_;
  std::map<Range, Lent> lent_;
  std::vector<Lane> lanes_;
  std::vector<verbs::Wc> came_;  // completions of the NIC, of which so many were looked at
  std::size_t looked_at_ = 0;
  unsigned turns_ = 0;
  std::array<std::byte, 1> last_word_{};
  bool closed_ = false;
  bool fenced_ = false;
};

}  // namespace

std::unique_ptr<Connection> verbs_over(std::unique_ptr<Connection> control, const VerbsSpec& spec,
                                       Waiting waiting, const Watch& watch) {
  if (!control || spec.lanes < 1 || spec.lanes > kMaxLanes) throw Error(Fault::kInvalid, "lanes");
  return std::make_unique<VerbsConnection>(std::move(control), spec, waiting, watch);
}

}  // namespace cwai

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
#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"
#include "transport/ring.hpp"
#include "transport/tcp.hpp"  // kMaxLanes
#include "verbs/library.hpp"

namespace cwai {
namespace {

using verbs::Library;

constexpr std::size_t kPageSize = 4096;

// ------------------------------------------------------------------------------ what is exchanged

// All numbers little-endian. Head: magic 8, version 2, lanes 2, lid 2, mtu 1, link layer 1, gid 16,
// crc 4; then for each lane: queue pair 4, first packet number 4; crc 4.
constexpr std::array<char, 8> kMagic = {'C', 'W', 'A', 'I', 'V', 'E', 'R', 'B'};
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHeadSize = 32;
constexpr std::size_t kLaneSize = 8;
constexpr std::size_t kCrcSize = 4;

struct Place {
  std::uint16_t lid;
  std::uint8_t mtu;
  std::uint8_t link_layer;
  verbs::Gid gid;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> lanes;  // queue pair, first packet number
};

std::vector<std::byte> encode(const Place& place) {
  std::vector<std::byte> record(kHeadSize + place.lanes.size() * kLaneSize + kCrcSize);
  std::byte* at = record.data();
  std::memcpy(at, kMagic.data(), kMagic.size());
  at += kMagic.size();
  put(at, kVersion);
  put(at, static_cast<std::uint16_t>(place.lanes.size()));
  put(at, place.lid);
  put(at, place.mtu);
  put(at, place.link_layer);
  std::memcpy(at, place.gid.raw.data(), place.gid.raw.size());
  at += place.gid.raw.size();
  for (const auto& [number, packet] : place.lanes) {
    put(at, number);
    put(at, packet);
  }
  put(at, crc32c(record.data(), record.size() - kCrcSize));
  return record;
}

// What the other end wrote by ``encode`` for as many lanes. A record of another number of lanes has
// another length, and would never come whole: so the head is compared first by whoever reads it.
Place decode(const std::vector<std::byte>& record, const std::string& from) {
  const std::byte* crc_at = record.data() + record.size() - kCrcSize;
  const bool whole = take<std::uint32_t>(crc_at) == crc32c(record.data(), record.size() - kCrcSize);
  if (std::memcmp(record.data(), kMagic.data(), kMagic.size()) != 0 || !whole)
    throw Error(Fault::kGarbled, from);
  const std::byte* at = record.data() + kMagic.size();
  if (take<std::uint16_t>(at) != kVersion) throw Error(Fault::kDisagreed, "version");
  Place place{};
  const std::size_t lanes = take<std::uint16_t>(at);
  place.lid = take<std::uint16_t>(at);
  place.mtu = take<std::uint8_t>(at);
  place.link_layer = take<std::uint8_t>(at);
  std::memcpy(place.gid.raw.data(), at, place.gid.raw.size());
  at += place.gid.raw.size();
  for (std::size_t i = 0; i < lanes && at + kLaneSize <= record.data() + record.size() - kCrcSize;
       ++i) {
    const auto number = take<std::uint32_t>(at);
    place.lanes.emplace_back(number, take<std::uint32_t>(at));
  }
  return place;
}

// Both ends send a record of the same size and read the other's.
std::vector<std::byte> exchange(Connection& control, std::span<const std::byte> mine,
                                const Watch& watch) {
  std::vector<std::byte> theirs(mine.size());
  control.post_receive(0, theirs, 0);
  control.post_send(0, mine, 0);
  for (int left = 2; left > 0;) {
    Completion done{};
    watch.check();
    if (control.wait({&done, 1}, watch.slice_end()) == 0) continue;
    if (done.status != 0)
      throw Error(done.status == ECONNRESET ? Fault::kPeerClosed : Fault::kTransfer,
                  control.remote(), done.status);
    --left;
  }
  return theirs;
}

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
        context_(verbs::open(spec.device)),
        port_(verbs::choose(*context_, spec.device, spec.port, spec.gid_index)),
        lanes_(static_cast<std::size_t>(spec.lanes)) {
    local_ =
        spec.device + ":" + std::to_string(spec.port) + " gid " + std::to_string(port_.gid_index);
    pd_.reset(made(library_.alloc_pd(context_.get()), spec.device + " alloc_pd"));
    channel_.reset(
        made(library_.create_comp_channel(context_.get()), spec.device + " create_comp_channel"));
    const auto entries = static_cast<int>(lanes_.size() * (kSends + kArrivals));
    cq_.reset(made(library_.create_cq(context_.get(), entries, nullptr, channel_.get(), 0),
                   spec.device + " create_cq"));
    fd_ = channel_fd(channel_.get());
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    letters_.resize(lanes_.size() * kSlots * kLetterSize);
    letters_mr_ = &region(letters_.data(), letters_.size(), letters_regions_);
    for (std::size_t i = 0; i < lanes_.size(); ++i) make_queue_pair(i, spec);
    meet(spec, watch);
    // From now on the other end says nothing there: what comes is its end.
    control_->post_receive(0, last_word_, 0);
  }

  ~VerbsConnection() override { lanes_.clear(); }

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
    l.receives.push({.data = data.data(), .size = data.size(), .tag = tag});
    if (l.error == 0) announce(l, data);  // told by the next message, or when this end waits
  }

  std::size_t poll(std::span<Completion> out) override {
    std::size_t n = 0;
    for (Lane& lane : lanes_) {
      if (lane.error == 0) tell(lane);
      if (lane.error != 0) n += broken(lane, out.subspan(n));
    }
    while (n < out.size()) {
      std::array<verbs::Wc, kBatch> done;
      const int most = static_cast<int>(std::min(out.size() - n, done.size()));
      const int got = context_->ops.poll_cq(cq_.get(), most, done.data());
      if (got < 0) throw Error(Fault::kTransfer, remote_, -got);
      for (int i = 0; i < got; ++i) n += arrived(done[static_cast<std::size_t>(i)], out[n]);
      if (got < most) break;
    }
    return n;
  }

  std::size_t wait(std::span<Completion> out, Nanos until) override {
    for (;;) {
      if (const std::size_t n = waiting_ == Waiting::kSpin ? spin(out) : sleep(out, until); n > 0)
        return n;
      if (control_closed()) {
        // What the other end wrote before it left is here by now.
        if (const std::size_t n = poll(out); n > 0) return n;
        for (Lane& lane : lanes_) break_lane(lane, ECONNRESET);
      }
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
  std::string local() const override { return local_; }
  std::string remote() const override { return remote_; }

 private:
  static constexpr std::size_t kBatch = 16;
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
  };
  struct Lane {
    std::size_t index = 0;
    verbs::QpPtr queue_pair;
    Ring<Operation, kDepth> sends;  // posted; the first ``issued`` of them are with the NIC
    std::size_t issued = 0;
    Ring<Operation, kDepth> receives;
    Ring<std::uint8_t, kDepth> landings;  // where the next messages may go
    std::array<Landing, kNumbers> theirs{};
    std::map<std::pair<std::uint64_t, std::size_t>, std::uint8_t> ours;  // landings described
    Ring<std::uint8_t, kDepth>
        untold;  // of those the ones posted that the other end is not told of
    std::size_t next_letter = 0;
    int error = 0;
  };
  // What is registered, by its first byte and its end.
  using Range = std::pair<const std::byte*, const std::byte*>;
  using Regions = std::map<Range, verbs::MrPtr>;

  template <typename T>
  static T* made(T* thing, const std::string& what) {
    if (thing == nullptr) throw Error(Fault::kDevice, what, errno);
    return thing;
  }

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

  void make_queue_pair(std::size_t index, const VerbsSpec& spec) {
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
    wanted.qp_type = verbs::kQpTypeRc;
    wanted.sq_sig_all = 1;
    lane.queue_pair.reset(made(library_.create_qp(pd_.get(), &wanted), spec.device + " create_qp"));
    verbs::QpAttr init{};
    init.qp_state = verbs::kQpInit;
    init.port_num = static_cast<std::uint8_t>(spec.port);
    init.qp_access_flags = verbs::kAccessLocalWrite | verbs::kAccessRemoteWrite;
    modify(lane, init,
           verbs::kQpState | verbs::kQpPkeyIndex | verbs::kQpPort | verbs::kQpAccessFlags, "INIT");
    for (std::size_t slot = 0; slot < kArrivals; ++slot) await_letter(lane, slot);
  }

  void modify(const Lane& lane, verbs::QpAttr& attr, int mask, const char* state) {
    if (const int failed = library_.modify_qp(lane.queue_pair.get(), &attr, mask); failed != 0)
      throw Error(Fault::kDevice, local_ + " " + state, failed);
  }

  void meet(const VerbsSpec& spec, const Watch& watch) {
    const std::array<std::byte, 2> count = {static_cast<std::byte>(lanes_.size() & 0xFFU),
                                            static_cast<std::byte>(lanes_.size() >> 8)};
    const std::vector<std::byte> counted = exchange(*control_, count, watch);
    if (!std::equal(counted.begin(), counted.end(), count.begin()))
      throw Error(Fault::kDisagreed, "lanes");
    Place mine{.lid = port_.attr.lid,
               .mtu = static_cast<std::uint8_t>(port_.attr.active_mtu),
               .link_layer = port_.attr.link_layer,
               .gid = port_.gid,
               .lanes = {}};
    for (const Lane& lane : lanes_)
      mine.lanes.emplace_back(lane.queue_pair->qp_num, first_packet(lane));
    const Place theirs = decode(exchange(*control_, encode(mine), watch), control_->remote());
    if (theirs.link_layer != mine.link_layer) throw Error(Fault::kDisagreed, "link layer");
    remote_ = control_->remote();
    for (Lane& lane : lanes_) connect(lane, mine, theirs, spec);
    const std::array<std::byte, 1> ready{};
    exchange(*control_, ready, watch);  // nobody sends before the other can receive
  }

  // Packet numbers start anywhere below 2^24; another place for each queue pair keeps late packets
  // of an earlier one out.
  static std::uint32_t first_packet(const Lane& lane) {
    return (lane.queue_pair->qp_num * 2'654'435'761U) & 0xFFFFFFU;
  }

  void connect(Lane& lane, const Place& mine, const Place& theirs, const VerbsSpec& spec) {
    const auto [number, packet] = theirs.lanes[lane.index];
    verbs::QpAttr attr{};
    attr.qp_state = verbs::kQpRtr;
    attr.path_mtu = std::min(mine.mtu, theirs.mtu);
    attr.dest_qp_num = number;
    attr.rq_psn = packet;
    attr.max_dest_rd_atomic = 1;
    attr.min_rnr_timer = 12;  // 0.64 ms (IBTA vol. 1, table 45)
    attr.ah_attr.port_num = static_cast<std::uint8_t>(spec.port);
    attr.ah_attr.sl = static_cast<std::uint8_t>(spec.service_level);
    attr.ah_attr.dlid = theirs.lid;
    if (mine.link_layer == verbs::kLinkEthernet || theirs.lid == 0) {
      attr.ah_attr.is_global = 1;
      attr.ah_attr.grh.dgid = theirs.gid;
      attr.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(port_.gid_index);
      attr.ah_attr.grh.hop_limit = 255;
      attr.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(spec.traffic_class);
    }
    modify(lane, attr,
           verbs::kQpState | verbs::kQpAv | verbs::kQpPathMtu | verbs::kQpDestQpn |
               verbs::kQpRqPsn | verbs::kQpMaxDestRdAtomic | verbs::kQpMinRnrTimer,
           "RTR");
    attr.qp_state = verbs::kQpRts;
    attr.timeout = static_cast<std::uint8_t>(spec.timeout);
    attr.retry_cnt = static_cast<std::uint8_t>(spec.retries);
    attr.rnr_retry = 7;  // without end: that nothing is posted yet is no fault
    attr.sq_psn = first_packet(lane);
    attr.max_rd_atomic = 1;
    modify(lane, attr,
           verbs::kQpState | verbs::kQpTimeout | verbs::kQpRetryCnt | verbs::kQpRnrRetry |
               verbs::kQpSqPsn | verbs::kQpMaxQpRdAtomic,
           "RTS");
  }

  // -------------------------------------------------------------------------------------- memory

  // The registration that holds all of [data, data + size); made when there is none yet. Whole
  // pages are registered: buffers next to one another share them.
  verbs::Mr& region(const std::byte* data, std::size_t size, Regions& regions) {
    constexpr int kLook = 4;  // of those that begin before it the nearest; another one costs little
    auto found = regions.upper_bound({data, reinterpret_cast<const std::byte*>(UINTPTR_MAX)});
    for (int i = 0; i < kLook && found != regions.begin(); ++i) {
      --found;
      if (data + size <= found->first.second) return *found->second;
    }
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const std::uintptr_t start = address & ~(kPageSize - 1);
    const std::uintptr_t end = (address + size + kPageSize - 1) & ~(kPageSize - 1);
    auto* first = reinterpret_cast<std::byte*>(start);
    const Range range{first, first + (end - start)};
    verbs::MrPtr made_now(made(
        library_.reg_mr(pd_.get(), first, end - start,
                        static_cast<int>(verbs::kAccessLocalWrite | verbs::kAccessRemoteWrite)),
        local_ + " reg_mr"));
    return *(regions[range] = std::move(made_now));
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
    const int failed = context_->ops.post_recv(lane.queue_pair.get(), &request, &bad);
    if (failed != 0 && lane.error == 0) break_lane(lane, failed);
  }

  void forget() {
    regions_.clear();
    for (Lane& lane : lanes_) lane.ours.clear();
  }

  // Where the next message of the other end may go: by its number if it is described already.
  void announce(Lane& lane, std::span<std::byte> data) {
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(data.data()));
    const auto known = lane.ours.find({address, data.size()});
    if (known != lane.ours.end()) return lane.untold.push(known->second);
    tell(lane);  // letters keep the order in which buffers were posted
    if (lane.ours.size() == kNumbers) lane.ours.clear();
    const auto number = static_cast<std::uint8_t>(lane.ours.size());
    lane.ours[{address, data.size()}] = number;
    const std::uint32_t key = region(data.data(), data.size(), regions_).rkey;
    write_letter(lane, [&](std::byte* at) {
      put(at, std::to_integer<std::uint8_t>(kDescribe));
      put(at, number);
      put(at, std::uint16_t{0});
      put(at, key);
      put(at, address);
      put(at, static_cast<std::uint32_t>(data.size()));
    });
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
      const Operation& next = lane.sends[lane.issued];
      const Landing& landing = lane.theirs[lane.landings.front()];
      if (landing.size != next.size) return break_lane(lane, EMSGSIZE);
      lane.landings.pop();
      verbs::Sge what{.addr = reinterpret_cast<std::uintptr_t>(next.data),
                      .length = static_cast<std::uint32_t>(next.size),
                      .lkey = region(next.data, next.size, regions_).lkey};
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
    const int failed = context_->ops.post_send(lane.queue_pair.get(), &request, &bad);
    if (failed != 0) break_lane(lane, failed);
  }

  // ------------------------------------------------------------------------------------ completing

  // What one completion of the NIC means; returns 1 when it completes an operation.
  std::size_t arrived(const verbs::Wc& done, Completion& out) {
    Lane& lane = lanes_[done.wr_id >> 32];
    if (lane.error != 0) return 0;  // of a broken lane all that is pending completes by itself
    if (done.status != verbs::kWcSuccess) {
      break_lane(lane, meaning(done.status));
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
    const std::size_t n = message ? completed(lane, lane.receives, Direction::kReceive, out) : 0;
    await_letter(lane, slot);
    issue(lane);
    return n;
  }

  static std::size_t completed(Lane& lane, Ring<Operation, kDepth>& queue, Direction direction,
                               Completion& out) {
    const Operation operation = queue.front();
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
      case verbs::kWcRemoteAccess:
        return EACCES;
      default:
        return EIO;
    }
  }

  // From here on nothing moves on this lane: the NIC has let go of every buffer when this returns.
  void break_lane(Lane& lane, int error) {
    if (lane.error != 0) return;
    lane.error = error;
    lane.queue_pair.reset();
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
    // The clock and the control connection are looked at now and then only.
    constexpr int kTurns = 1024;
    for (int turn = 0; turn < kTurns; ++turn)
      if (const std::size_t n = poll(out); n > 0) return n;
    return 0;
  }

  std::size_t sleep(std::span<Completion> out, Nanos until) {
    if (const std::size_t n = poll(out); n > 0) return n;
    context_->ops.req_notify_cq(cq_.get(), 0);
    if (const std::size_t n = poll(out); n > 0) return n;  // it may have come in between
    const Nanos left = std::clamp<Nanos>(until - now(), 0, kSlice);
    pollfd entry{.fd = fd_, .events = POLLIN, .revents = 0};
    ::poll(&entry, 1, static_cast<int>((left + 999'999) / 1'000'000));
    verbs::Cq* which = nullptr;
    void* context = nullptr;
    while (library_.get_cq_event(channel_.get(), &which, &context) == 0)
      library_.ack_cq_events(cq_.get(), 1);
    return poll(out);
  }

  bool control_closed() {
    if (closed_) return true;
    Completion done{};
    closed_ = control_->poll({&done, 1}) > 0;
    return closed_;
  }

  const Library& library_ = Library::get();
  std::unique_ptr<Connection> control_;
  Waiting waiting_;
  // In the order in which they are made; they go in the opposite one.
  verbs::ContextPtr context_;
  verbs::PortChoice port_;
  verbs::PdPtr pd_;
  verbs::ChannelPtr channel_;
  verbs::CqPtr cq_;
  int fd_ = -1;
  std::vector<std::byte> letters_;  // landings that come and that go, of all lanes
  Regions letters_regions_;
  verbs::Mr* letters_mr_ = nullptr;
  Regions regions_;
  std::vector<Lane> lanes_;
  std::array<std::byte, 1> last_word_{};
  std::string local_;
  std::string remote_;
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

#include "verbs/endpoint.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/little_endian.hpp"

namespace cwai::verbs {

// Where the queue pairs of an end are: a queue pair's number and that of its first packet.
struct Endpoint::Place {
  std::uint16_t lid;
  std::uint8_t mtu;
  std::uint8_t link_layer;
  std::uint8_t reads;  // that a queue pair answers at a time
  Gid gid;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> queue_pairs;

  // All numbers little-endian. Head: magic 8, version 2, queue pairs 2, lid 2, mtu 1, link layer 1,
  // reads 1, zero 1, gid 16; then for each queue pair: number 4, first packet 4; crc 4.
  static constexpr std::array<char, 8> kMagic = {'C', 'W', 'A', 'I', 'V', 'E', 'R', 'B'};
  static constexpr std::uint16_t kVersion = 2;
  static constexpr std::size_t kHeadSize = 34;
  static constexpr std::size_t kEachSize = 8;
  static constexpr std::size_t kCrcSize = 4;

  std::vector<std::byte> encode() const {
    std::vector<std::byte> record(kHeadSize + queue_pairs.size() * kEachSize + kCrcSize);
    std::byte* at = record.data();
    std::memcpy(at, kMagic.data(), kMagic.size());
    at += kMagic.size();
    put(at, kVersion);
    put(at, static_cast<std::uint16_t>(queue_pairs.size()));
    put(at, lid);
    put(at, mtu);
    put(at, link_layer);
    put(at, reads);
    put(at, std::uint8_t{0});
    std::memcpy(at, gid.raw.data(), gid.raw.size());
    at += gid.raw.size();
    for (const auto& [number, packet] : queue_pairs) {
      put(at, number);
      put(at, packet);
    }
    put(at, crc32c(record.data(), record.size() - kCrcSize));
    return record;
  }

  // What the other end wrote by ``encode`` for as many queue pairs. A record of another number of
  // them has another length, and would never come whole: so the number is compared before by
  // whoever reads it.
  static Place decode(const std::vector<std::byte>& record, const std::string& from) {
    const std::byte* crc_at = record.data() + record.size() - kCrcSize;
    const bool whole =
        take<std::uint32_t>(crc_at) == crc32c(record.data(), record.size() - kCrcSize);
    if (std::memcmp(record.data(), kMagic.data(), kMagic.size()) != 0 || !whole)
      throw Error(Fault::kGarbled, from);
    const std::byte* at = record.data() + kMagic.size();
    if (take<std::uint16_t>(at) != kVersion) throw Error(Fault::kDisagreed, "version");
    Place place{};
    const std::size_t count = take<std::uint16_t>(at);
    if (kHeadSize + count * kEachSize + kCrcSize != record.size())
      throw Error(Fault::kDisagreed, "queue pairs");
    place.lid = take<std::uint16_t>(at);
    place.mtu = take<std::uint8_t>(at);
    place.link_layer = take<std::uint8_t>(at);
    place.reads = take<std::uint8_t>(at);
    take<std::uint8_t>(at);
    std::memcpy(place.gid.raw.data(), at, place.gid.raw.size());
    at += place.gid.raw.size();
    for (std::size_t i = 0; i < count; ++i) {
      const auto number = take<std::uint32_t>(at);
      place.queue_pairs.emplace_back(number, take<std::uint32_t>(at));
    }
    return place;
  }
};

namespace {

constexpr std::array kMtus = {256, 512, 1024, 2048, 4096};  // of the codes from 1 on

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

// Packet numbers start anywhere below 2^24; another place for each queue pair keeps late packets of
// an earlier one out.
std::uint32_t first_packet(const Qp* queue_pair) {
  return (queue_pair->qp_num * 2'654'435'761U) & 0xFFFFFFU;
}

// Reads in flight on a queue pair, at most: NICs answer 16, soft-RoCE 128.
constexpr int kMostReads = 128;

std::uint8_t reads_of(int device_says) {
  return static_cast<std::uint8_t>(std::clamp(device_says, 1, kMostReads));
}

}  // namespace

Endpoint::Endpoint(const PathSpec& spec)
    : spec_(spec),
      context_(open(spec.device)),
      port_(choose(*context_, spec.device, spec.port, spec.gid_index)),
      name_(spec.device + ":" + std::to_string(spec.port) + " gid " +
            std::to_string(port_.gid_index)),
      largest_mtu_(port_.attr.active_mtu) {
  if (spec.mtu != 0) {
    const auto* found = std::find(kMtus.begin(), kMtus.end(), spec.mtu);
    if (found == kMtus.end()) throw Error(Fault::kInvalid, "mtu " + std::to_string(spec.mtu));
    largest_mtu_ = std::min(largest_mtu_, static_cast<int>(found - kMtus.begin()) + 1);
  }
  if (const int failed = library_.query_device(context_.get(), &device_); failed != 0)
    throw Error(Fault::kDevice, spec.device + " query_device", failed);
  pd_.reset(made(library_.alloc_pd(context_.get()), spec.device + " alloc_pd"));
}

bool Endpoint::has_its_gid() const {
  Gid gid{};
  return library_.query_gid(context_.get(), static_cast<std::uint8_t>(spec_.port), port_.gid_index,
                            &gid) == 0 &&
         gid.raw == port_.gid.raw;
}

MrPtr Endpoint::region(std::uint64_t address, std::size_t size, unsigned access) const {
  auto* data = reinterpret_cast<void*>(address);
  errno = 0;
  if ((access & kAccessRelaxedOrdering) == 0)
    return MrPtr(
        made(library_.reg_mr(pd_.get(), data, size, static_cast<int>(access)), name_ + " reg_mr"));
  if (library_.reg_mr_iova2 == nullptr)
    throw Error(Fault::kDevice, name_ + " relaxed ordering", ENOTSUP);
  return MrPtr(
      made(library_.reg_mr_iova2(pd_.get(), data, size, address, access), name_ + " reg_mr_iova2"));
}

MrPtr Endpoint::region_of(int dma_buf, std::uint64_t address, std::size_t size, unsigned access,
                          std::uint64_t offset) const {
  if (library_.reg_dmabuf_mr == nullptr) return nullptr;
  return MrPtr(
      library_.reg_dmabuf_mr(pd_.get(), offset, size, address, dma_buf, static_cast<int>(access)));
}

// Null when the device, or its library, makes none.
Qp* Endpoint::extended(QpInitAttr& wanted, std::uint64_t operations) const {
  const auto* marked = context_->abi_compat;
  if (marked != reinterpret_cast<void*>(UINTPTR_MAX) || library_.qp_to_qp_ex == nullptr)
    return nullptr;
  const auto* around = reinterpret_cast<const VerbsContext*>(
      reinterpret_cast<const std::byte*>(context_.get()) - offsetof(VerbsContext, context));
  if (around->size < sizeof(VerbsContext) || around->create_qp_ex == nullptr) return nullptr;
  QpInitAttrEx asked{};
  asked.send_cq = wanted.send_cq;
  asked.recv_cq = wanted.recv_cq;
  asked.cap = wanted.cap;
  asked.qp_type = wanted.qp_type;
  asked.sq_sig_all = wanted.sq_sig_all;
  asked.comp_mask = kQpInitPd | kQpInitSendOps;
  asked.pd = pd_.get();
  asked.send_ops_flags = operations;
  Qp* const queue_pair = around->create_qp_ex(context_.get(), &asked);
  if (queue_pair != nullptr) wanted.cap = asked.cap;
  return queue_pair;
}

QpPtr Endpoint::queue_pair(QpInitAttr& wanted, std::uint64_t operations) const {
  wanted.qp_type = kQpTypeRc;
  QpPtr queue_pair(operations == 0 ? nullptr : extended(wanted, operations));
  if (!queue_pair)
    queue_pair.reset(made(library_.create_qp(pd_.get(), &wanted), spec_.device + " create_qp"));
  QpAttr init{};
  init.qp_state = kQpInit;
  init.port_num = static_cast<std::uint8_t>(spec_.port);
  init.qp_access_flags = kAccessLocalWrite | kAccessRemoteWrite | kAccessRemoteRead;
  modify(queue_pair.get(), init, kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags, "INIT");
  return queue_pair;
}

void Endpoint::modify(Qp* queue_pair, QpAttr& attr, int mask, const char* state) const {
  if (const int failed = library_.modify_qp(queue_pair, &attr, mask); failed != 0)
    throw Error(Fault::kDevice, name_ + " " + state, failed);
}

bool Endpoint::halt(Qp* queue_pair) const noexcept {
  QpAttr attr{};
  attr.qp_state = kQpErr;
  return library_.modify_qp(queue_pair, &attr, kQpState) == 0;
}

void Endpoint::expect_active() const {
  PortAttr attr{};
  const auto port = static_cast<std::uint8_t>(spec_.port);
  if (library_.query_port(context_.get(), port, &attr) != 0 || attr.state != kPortActive)
    throw Error(Fault::kDevice, spec_.device + ":" + std::to_string(spec_.port), ENETDOWN);
}

void Endpoint::join(std::span<const QpPtr> mine, Connection& control, const Watch& watch) {
  const std::array<std::byte, 2> count = {static_cast<std::byte>(mine.size() & 0xFFU),
                                          static_cast<std::byte>(mine.size() >> 8)};
  const std::vector<std::byte> counted = exchange(control, count, watch);
  if (!std::equal(counted.begin(), counted.end(), count.begin()))
    throw Error(Fault::kDisagreed, "queue pairs");
  Place here{.lid = port_.attr.lid,
             .mtu = static_cast<std::uint8_t>(largest_mtu_),
             .link_layer = port_.attr.link_layer,
             .reads = reads_of(device_.max_qp_rd_atom),
             .gid = port_.gid,
             .queue_pairs = {}};
  for (const QpPtr& one : mine) here.queue_pairs.emplace_back(one->qp_num, first_packet(one.get()));
  Place there = Place::decode(exchange(control, here.encode(), watch), control.remote());
  if (there.link_layer != here.link_layer) throw Error(Fault::kDisagreed, "link layer");
  there.mtu = std::min(here.mtu, there.mtu);
  if (there.mtu < 1 || there.mtu > kMtus.size()) throw Error(Fault::kDisagreed, "mtu");
  mtu_ = kMtus[there.mtu - 1U];
  for (std::size_t i = 0; i < mine.size(); ++i) connect(mine[i].get(), there.queue_pairs[i], there);
  const std::array<std::byte, 1> ready{};
  exchange(control, ready, watch);  // nobody sends before the other can receive
}

void Endpoint::connect(Qp* mine, std::pair<std::uint32_t, std::uint32_t> theirs,
                       const Place& place) {
  QpAttr attr{};
  attr.qp_state = kQpRtr;
  attr.path_mtu = place.mtu;
  attr.dest_qp_num = theirs.first;
  attr.rq_psn = theirs.second;
  attr.max_dest_rd_atomic = reads_of(device_.max_qp_rd_atom);
  attr.min_rnr_timer = 12;  // 0.64 ms (IBTA vol. 1, table 45)
  attr.ah_attr.port_num = static_cast<std::uint8_t>(spec_.port);
  attr.ah_attr.sl = static_cast<std::uint8_t>(spec_.service_level);
  attr.ah_attr.dlid = place.lid;
  if (place.link_layer == kLinkEthernet || place.lid == 0) {
    attr.ah_attr.is_global = 1;
    attr.ah_attr.grh.dgid = place.gid;
    attr.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(port_.gid_index);
    attr.ah_attr.grh.hop_limit = 255;
    attr.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(spec_.traffic_class);
  }
  modify(
      mine, attr,
      kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer,
      "RTR");
  attr.qp_state = kQpRts;
  attr.timeout = static_cast<std::uint8_t>(spec_.timeout);
  attr.retry_cnt = static_cast<std::uint8_t>(spec_.retries);
  attr.rnr_retry = 7;  // without end: that nothing is posted yet is no fault
  attr.sq_psn = first_packet(mine);
  // No more reads at a time than this end may ask and the other may answer.
  attr.max_rd_atomic =
      std::min(reads_of(device_.max_qp_init_rd_atom),
               static_cast<std::uint8_t>(std::clamp<int>(place.reads, 1, kMostReads)));
  modify(mine, attr,
         kQpState | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpSqPsn | kQpMaxQpRdAtomic, "RTS");
}

}  // namespace cwai::verbs

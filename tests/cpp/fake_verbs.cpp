// A libibverbs that has two devices and no NIC: queue pairs of this process reach one
// another by copying. As strict as the real one in what a test is to find: nothing is freed while
// something made of it is alive, and no byte is written outside of a registration.
#include "fake_verbs.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "verbs/abi.hpp"

using namespace cwai::verbs;

namespace cwai::verbs {
struct Device {
  const char* name;
  FakeDevice* state;
};
struct Pd {
  Context* context;
};
struct CompChannel {
  Context* context;
  int fd;
  int references;
  std::deque<Cq*> events;
};
}  // namespace cwai::verbs

namespace {

struct FakeContext : VerbsContext {
  std::deque<AsyncEvent> events;
};

FakeContext* whole(Context* context) {
  return static_cast<FakeContext*>(reinterpret_cast<VerbsContext*>(
      reinterpret_cast<std::byte*>(context) - offsetof(VerbsContext, context)));
}

struct FakeCq : Cq {
  std::deque<Wc> done;
  bool armed = false;
};

struct Sent {
  std::uint64_t id;
  std::uint32_t key;
};

struct FakeQp : QpEx {
  std::uint32_t peer = 0;
  bool all_signalled = false;
  bool in_error = false;
  bool extended = false;
  std::deque<RecvWr> landings;
  std::deque<Sge> places;
  std::vector<Sent> on_the_way;  // without end: nobody answers
  std::vector<SendWr> building;
  std::vector<Sge> built_places;
};

std::mutex mutex;
FakeVerbs counts;
std::array<Device, 2> devices = {{{"fake0", counts.devices.data()}, {"fake1", &counts.devices[1]}}};
std::set<FakeContext*> contexts;
std::map<std::uint32_t, FakeQp*> queue_pairs;
std::set<Mr*> regions;
std::uint32_t next_number = 100;

// Whether what is about to be made is to fail, as a test asked for.
bool refused() {
  if (counts.fail_after < 0) return false;
  if (counts.fail_after > 0) {
    --counts.fail_after;
    return false;
  }
  errno = ENOMEM;
  return true;
}

std::map<const void*, std::set<const void*>> made_of;  // what is alive, and of what it was made

template <typename T>
T* made(T* thing, std::set<const void*> parts) {
  made_of[thing] = std::move(parts);
  counts.alive = static_cast<int>(made_of.size());
  return thing;
}

void let_go(const void* thing) {
  made_of.erase(thing);
  counts.alive = static_cast<int>(made_of.size());
  for (const auto& [other, parts] : made_of)
    if (parts.contains(thing)) ++counts.freed_too_early;
}

template <typename T>
int freed(T* thing) {
  let_go(thing);
  delete thing;
  return 0;
}

FakeQp* queue_pair(QpEx* qp) { return static_cast<FakeQp*>(qp); }
FakeQp* queue_pair(Qp* qp) { return queue_pair(reinterpret_cast<QpEx*>(qp)); }

bool registered(std::uint64_t address, std::size_t size, std::uint32_t key) {
  return std::any_of(regions.begin(), regions.end(), [&](const Mr* mr) {
    const auto start = reinterpret_cast<std::uint64_t>(mr->addr);
    return mr->lkey == key && address >= start && address + size <= start + mr->length;
  });
}

void ring(int fd) {
  const std::uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);
}
void quiet(int fd) {
  std::uint64_t one;
  (void)!read(fd, &one, sizeof one);  // NOLINT(clang-analyzer-unix.BlockInCriticalSection)
}

void complete(Cq* cq, std::uint64_t id, int opcode, std::uint32_t size, std::uint32_t immediate,
              int status = kWcSuccess) {
  Wc done{};
  done.status = status;
  done.vendor_err = status == kWcSuccess ? 0 : 0x81;
  done.wr_id = id;
  done.opcode = opcode;
  done.byte_len = size;
  done.imm_data = immediate;
  auto* queue = static_cast<FakeCq*>(cq);
  queue->done.push_back(done);
  if (queue->channel == nullptr || !std::exchange(queue->armed, false)) return;
  queue->channel->events.push_back(cq);
  ring(queue->channel->fd);
}

// What an event is waited for at; readable while there is one.
int bell() { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE); }

int poll_cq(Cq* cq, int most, Wc* out) {
  const std::lock_guard lock(mutex);
  auto& done = static_cast<FakeCq*>(cq)->done;
  int n = 0;
  for (; n < most && !done.empty(); ++n) {
    out[n] = done.front();
    done.pop_front();
  }
  return n;
}

int req_notify_cq(Cq* cq, int) {
  const std::lock_guard lock(mutex);
  static_cast<FakeCq*>(cq)->armed = true;
  return 0;
}

void fail(FakeQp& qp) {
  qp.in_error = true;
  for (const Sent& request : qp.on_the_way)
    complete(qp.base.send_cq, request.id, kWcSend, 0, 0, kWcWrFlush);
  qp.on_the_way.clear();
  for (const RecvWr& request : qp.landings)
    complete(qp.base.recv_cq, request.wr_id, kWcRecv, 0, 0, kWcWrFlush);
  qp.landings.clear();
  qp.places.clear();
}

int post_recv(Qp* qp, RecvWr* request, RecvWr**) {
  const std::lock_guard lock(mutex);
  for (; request != nullptr; request = request->next) {
    if (queue_pair(qp)->in_error) {
      complete(qp->recv_cq, request->wr_id, kWcRecv, 0, 0, kWcWrFlush);
      continue;
    }
    queue_pair(qp)->landings.push_back(*request);
    queue_pair(qp)->places.push_back(*request->sg_list);
  }
  return 0;
}

// One request; 0, or errno.
int carry_out(Qp* qp, const SendWr& request) {
  const bool signalled = queue_pair(qp)->all_signalled || (request.send_flags & kSendSignaled) != 0;
  const auto tell = [&](int opcode, int status = kWcSuccess) {
    if (signalled || status != kWcSuccess)
      complete(qp->send_cq, request.wr_id, opcode, request.sg_list->length, 0, status);
  };
  FakeDevice& device = *qp->pd->context->device->state;
  if (queue_pair(qp)->in_error) {
    tell(kWcSend, kWcWrFlush);
    return 0;
  }
  if (const int status = device.next_status.exchange(0); status != kWcSuccess) {
    tell(kWcSend, status);
    fail(*queue_pair(qp));
    return 0;
  }
  const auto hold = [&] {
    queue_pair(qp)->on_the_way.push_back({request.wr_id, request.sg_list->lkey});
    return 0;
  };
  if (device.silent) return hold();
  if (counts.fail_sends_after == 0) {
    tell(kWcSend, kWcRetryExceeded);
    return 0;
  }
  if (counts.fail_sends_after > 0) --counts.fail_sends_after;
  ++counts.sent;
  const Sge& what = *request.sg_list;
  const auto found = queue_pairs.find(queue_pair(qp)->peer);
  if (found == queue_pairs.end()) return hold();  // nobody there: it is sent again and again
  FakeQp& peer = *found->second;
  if (peer.in_error) return hold();
  const bool inlined = (request.send_flags & kSendInline) != 0;
  if (!inlined && !registered(what.addr, what.length, what.lkey)) return EFAULT;
  const auto copy = [&](std::uint64_t to, std::uint64_t from) {
    // The last byte comes last, for whoever watches it.
    auto* into = reinterpret_cast<std::byte*>(to);
    const auto* bytes = reinterpret_cast<const std::byte*>(from);
    std::memcpy(into, bytes, what.length - 1);
    if (counts.corrupt) into[0] ^= std::byte{1};
    std::atomic_ref(into[what.length - 1]).store(bytes[what.length - 1], std::memory_order_release);
  };
  const bool one_sided = request.opcode == kWrRdmaWrite || request.opcode == kWrRdmaRead;
  if (one_sided || request.opcode == kWrRdmaWriteWithImm)
    if (!registered(request.rdma.remote_addr, what.length, request.rdma.rkey)) return EFAULT;
  if (one_sided) {
    const bool read = request.opcode == kWrRdmaRead;
    read ? copy(what.addr, request.rdma.remote_addr) : copy(request.rdma.remote_addr, what.addr);
    tell(read ? kWcRdmaRead : kWcRdmaWrite);
    return 0;
  }
  if (peer.landings.empty()) return ENOMEM;
  const bool write = request.opcode == kWrRdmaWriteWithImm;
  const Sge place = peer.places.front();
  if (!write && (place.length < what.length || !registered(place.addr, what.length, place.lkey)))
    return EFAULT;
  copy(write ? request.rdma.remote_addr : place.addr, what.addr);
  complete(peer.base.recv_cq, peer.landings.front().wr_id, write ? kWcRecvRdmaWithImm : kWcRecv,
           what.length, request.imm_data);
  peer.landings.pop_front();
  peer.places.pop_front();
  tell(write ? kWcRdmaWrite : kWcSend);
  return 0;
}

int post_send(Qp* qp, SendWr* request, SendWr**) {
  if (counts.nowhere) {
    const std::lock_guard lock(mutex);
    for (; request != nullptr; request = request->next)
      if ((request->send_flags & kSendSignaled) != 0)
        complete(qp->send_cq, request->wr_id, kWcRdmaWrite, request->sg_list->length, 0);
    return 0;
  }
  for (; request != nullptr; request = request->next) {
    // As the wire does: what finds no receive is sent again until there is one.
    for (;;) {
      const std::unique_lock lock(mutex);
      const int failed = carry_out(qp, *request);
      if (failed == 0) break;
      if (failed != ENOMEM || request->opcode == kWrRdmaWriteWithImm) return failed;
      if (queue_pairs.find(queue_pair(qp)->peer) == queue_pairs.end()) break;
    }
  }
  return 0;
}

// ------------------------------------------------------------------ requests built in the queue
// pair

void wr_start(QpEx* qp) {
  queue_pair(qp)->building.clear();
  queue_pair(qp)->built_places.clear();
}

void begin(QpEx* qp, int opcode, std::uint32_t key = 0, std::uint64_t address = 0) {
  SendWr request{};
  request.wr_id = qp->wr_id;
  request.send_flags = qp->wr_flags;
  request.opcode = opcode;
  request.num_sge = 1;
  request.rdma.remote_addr = address;
  request.rdma.rkey = key;
  queue_pair(qp)->building.push_back(request);
}
void wr_rdma_write(QpEx* qp, std::uint32_t key, std::uint64_t address) {
  begin(qp, kWrRdmaWrite, key, address);
}
void wr_rdma_read(QpEx* qp, std::uint32_t key, std::uint64_t address) {
  begin(qp, kWrRdmaRead, key, address);
}
void wr_send(QpEx* qp) { begin(qp, kWrSend); }

void wr_set_sge(QpEx* qp, std::uint32_t key, std::uint64_t address, std::uint32_t length) {
  queue_pair(qp)->built_places.push_back({.addr = address, .length = length, .lkey = key});
}
// As soft-RoCE: the flag of inline data must be among the request's own.
void wr_set_inline_data(QpEx* qp, void* data, std::size_t length) {
  wr_set_sge(qp, 0, reinterpret_cast<std::uint64_t>(data), static_cast<std::uint32_t>(length));
}

int wr_complete(QpEx* qp) {
  auto& requests = queue_pair(qp)->building;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].sg_list = &queue_pair(qp)->built_places.at(i);  // each was given its data
    requests[i].next = i + 1 < requests.size() ? &requests[i + 1] : nullptr;
  }
  {
    const std::lock_guard lock(mutex);
    counts.built += requests.size();
  }
  return post_send(&qp->base, requests.data(), nullptr);
}

FakeQp* make_queue_pair(Pd* pd, const QpInitAttr& wanted) {
  constexpr std::uint32_t kMostInline = 64;
  if (wanted.cap.max_inline_data > kMostInline) {
    errno = EINVAL;
    return nullptr;
  }
  auto* qp = new FakeQp{};
  qp->base.send_cq = wanted.send_cq;
  qp->base.recv_cq = wanted.recv_cq;
  qp->base.pd = pd;
  qp->base.qp_num = next_number++;
  qp->all_signalled = wanted.sq_sig_all != 0;
  queue_pairs[qp->base.qp_num] = qp;
  return made(qp, {pd, static_cast<FakeCq*>(wanted.send_cq)});
}

Qp* create_qp_ex(Context*, QpInitAttrEx* wanted) {
  const std::lock_guard lock(mutex);
  if (counts.no_building || (wanted->comp_mask & kQpInitSendOps) == 0) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  if (refused()) return nullptr;
  const QpInitAttr plain{.qp_context = nullptr,
                         .send_cq = wanted->send_cq,
                         .recv_cq = wanted->recv_cq,
                         .srq = nullptr,
                         .cap = wanted->cap,
                         .qp_type = wanted->qp_type,
                         .sq_sig_all = wanted->sq_sig_all};
  FakeQp* qp = make_queue_pair(wanted->pd, plain);
  if (qp == nullptr) return nullptr;
  qp->extended = true;
  // What was not asked for stays null, as it is not there on a device.
  if ((wanted->send_ops_flags & kWithRdmaWrite) != 0) qp->wr_rdma_write = wr_rdma_write;
  if ((wanted->send_ops_flags & kWithRdmaRead) != 0) qp->wr_rdma_read = wr_rdma_read;
  if ((wanted->send_ops_flags & kWithSend) != 0) qp->wr_send = wr_send;
  qp->wr_set_sge = wr_set_sge;
  qp->wr_set_inline_data = wr_set_inline_data;
  qp->wr_start = wr_start;
  qp->wr_complete = wr_complete;
  return &qp->base;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED FakeVerbs* fake_verbs() {
  counts.raise = [](std::size_t device, int type) {
    const std::lock_guard lock(mutex);
    for (FakeContext* opened : contexts) {
      const Context& context = opened->context;
      if (context.device != &devices.at(device)) continue;
      AsyncEvent event{};
      event.element.port = 1;
      event.type = type;
      opened->events.push_back(event);
      ring(context.async_fd);
    }
  };
  counts.force_errors = [](std::size_t device) {
    const std::lock_guard lock(mutex);
    for (const auto& [number, qp] : queue_pairs)
      if (qp->base.pd->context->device == &devices.at(device)) fail(*qp);
  };
  counts.registered = [](const void* data, std::size_t size) {
    const std::lock_guard lock(mutex);
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    return std::any_of(regions.begin(), regions.end(), [&](const Mr* mr) {
      const auto start = reinterpret_cast<std::uintptr_t>(mr->addr);
      return begin < start + mr->length && start < begin + size;
    });
  };
  return &counts;
}

EXPORTED Device** ibv_get_device_list(int* count) {
  static Device* listed[] = {devices.data(), &devices[1], nullptr};
  *count = 2;
  return listed;
}
EXPORTED void ibv_free_device_list(Device**) {}
EXPORTED const char* ibv_get_device_name(Device* device) { return device->name; }

EXPORTED Context* ibv_open_device(Device* of) {
  const std::lock_guard lock(mutex);
  if (refused()) return nullptr;
  auto* opened = new FakeContext{};
  opened->size = sizeof(VerbsContext);
  opened->create_qp_ex = create_qp_ex;
  Context* context = &opened->context;
  context->abi_compat = counts.old_library ? nullptr : reinterpret_cast<void*>(UINTPTR_MAX);
  context->device = of;
  context->async_fd = bell();
  contexts.insert(opened);
  context->ops.poll_cq = poll_cq;
  context->ops.req_notify_cq = req_notify_cq;
  context->ops.post_recv = post_recv;
  context->ops.post_send = post_send;
  return made(context, {});
}
EXPORTED int ibv_close_device(Context* context) {
  const std::lock_guard lock(mutex);
  close(context->async_fd);
  contexts.erase(whole(context));
  let_go(context);
  delete whole(context);
  return 0;
}
EXPORTED int ibv_get_async_event(Context* context, AsyncEvent* event) {
  const std::lock_guard lock(mutex);
  auto& events = whole(context)->events;
  if (events.empty()) {
    errno = EAGAIN;
    return -1;
  }
  quiet(context->async_fd);
  *event = events.front();
  events.pop_front();
  return 0;
}
EXPORTED void ibv_ack_async_event(AsyncEvent*) {}

EXPORTED int ibv_query_device(Context*, DeviceAttr* attr) {
  attr->max_qp_rd_atom = 16;
  attr->max_qp_init_rd_atom = 16;
  attr->phys_port_cnt = 1;
  return 0;
}
EXPORTED int ibv_query_port(Context* context, std::uint8_t, PortAttr* attr) {
  attr->state = context->device->state->port_state;
  attr->active_mtu = 3;
  attr->gid_tbl_len = 1024;
  attr->link_layer = kLinkEthernet;
  return 0;
}
EXPORTED int ibv_query_gid(Context*, std::uint8_t, int index, Gid* gid) {
  gid->raw = {};
  if (index >= counts.first_gid) gid->raw[15] = 1;
  return 0;
}

EXPORTED Pd* ibv_alloc_pd(Context* context) {
  const std::lock_guard lock(mutex);
  return refused() ? nullptr : made(new Pd{context}, {context});
}
EXPORTED int ibv_dealloc_pd(Pd* pd) {
  const std::lock_guard lock(mutex);
  return freed(pd);
}

EXPORTED Mr* ibv_reg_mr(Pd* pd, void* address, std::size_t length, int) {
  const std::lock_guard lock(mutex);
  if (refused()) return nullptr;
  const std::uint32_t key = next_number++;
  auto* region = made(new Mr{nullptr, pd, address, length, 0, key, key}, {pd});
  regions.insert(region);
  return region;
}
EXPORTED Mr* ibv_reg_dmabuf_mr(Pd* pd, std::uint64_t, std::size_t length, std::uint64_t iova,
                               int fd, int access) {
  errno = counts.no_dma_buf ? EOPNOTSUPP : EBADF;
  if (counts.no_dma_buf || fcntl(fd, F_GETFD) < 0) return nullptr;
  ++counts.dma_bufs;
  return ibv_reg_mr(pd, reinterpret_cast<void*>(iova), length, access);
}
EXPORTED int ibv_dereg_mr(Mr* mr) {
  const std::lock_guard lock(mutex);
  regions.erase(mr);
  for (const auto& [number, qp] : queue_pairs)
    counts.freed_too_early += static_cast<int>(
        std::count_if(qp->on_the_way.begin(), qp->on_the_way.end(),
                      [&](const Sent& request) { return request.key == mr->lkey; }));
  return freed(mr);
}

EXPORTED CompChannel* ibv_create_comp_channel(Context* context) {
  const std::lock_guard lock(mutex);
  return refused() ? nullptr : made(new CompChannel{context, bell(), 0, {}}, {context});
}
EXPORTED int ibv_destroy_comp_channel(CompChannel* channel) {
  const std::lock_guard lock(mutex);
  close(channel->fd);
  return freed(channel);
}

EXPORTED Cq* ibv_create_cq(Context* context, int, void*, CompChannel* channel, int) {
  const std::lock_guard lock(mutex);
  if (refused()) return nullptr;
  auto* cq = new FakeCq{};
  cq->context = context;
  cq->channel = channel;
  return made(cq, {context, channel});
}
EXPORTED int ibv_destroy_cq(Cq* cq) {
  const std::lock_guard lock(mutex);
  return freed(static_cast<FakeCq*>(cq));
}
EXPORTED int ibv_get_cq_event(CompChannel* channel, Cq** cq, void**) {
  const std::lock_guard lock(mutex);
  if (channel->events.empty()) {
    errno = EAGAIN;
    return -1;
  }
  quiet(channel->fd);
  *cq = channel->events.front();
  channel->events.pop_front();
  return 0;
}
EXPORTED void ibv_ack_cq_events(Cq*, unsigned) {}

EXPORTED Qp* ibv_create_qp(Pd* pd, QpInitAttr* wanted) {
  const std::lock_guard lock(mutex);
  if (refused()) return nullptr;
  FakeQp* qp = make_queue_pair(pd, *wanted);
  return qp == nullptr ? nullptr : &qp->base;
}
EXPORTED QpEx* ibv_qp_to_qp_ex(Qp* qp) {
  return queue_pair(qp)->extended ? queue_pair(qp) : nullptr;
}
EXPORTED int ibv_modify_qp(Qp* qp, QpAttr* attr, int mask) {
  const std::lock_guard lock(mutex);
  if ((mask & kQpState) != 0 && attr->qp_state == kQpErr) fail(*queue_pair(qp));
  if ((mask & kQpDestQpn) != 0) queue_pair(qp)->peer = attr->dest_qp_num;
  return 0;
}
EXPORTED int ibv_destroy_qp(Qp* qp) {
  const std::lock_guard lock(mutex);
  queue_pairs.erase(qp->qp_num);
  counts.cut_short +=
      static_cast<int>(queue_pair(qp)->landings.size() + queue_pair(qp)->on_the_way.size());
  return freed(queue_pair(qp));
}
EXPORTED const char* ibv_wc_status_str(int status) {
  return status == kWcRetryExceeded ? "transport retry counter exceeded" : "fake";
}

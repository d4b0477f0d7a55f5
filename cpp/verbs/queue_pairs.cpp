#include "verbs/queue_pairs.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "support/error.hpp"

namespace cwai {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw Error(Fault::kInvalid, what);
}

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = 2U << 20;

std::size_t up_to(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

// Twice the last cache, so that a message is gone from it before its turn comes again.
std::size_t cold_bytes() {
  const long last = sysconf(_SC_LEVEL3_CACHE_SIZE);
  constexpr std::size_t kLeast = 64U << 20;  // where the system does not tell
  return std::max(kLeast, 2 * static_cast<std::size_t>(std::max(last, 0L)));
}

}  // namespace

QueuePairs::QueuePairs(std::unique_ptr<Connection> control, const QueuePairsSpec& spec,
                       const Watch& watch)
    : spec_(spec), control_(std::move(control)), endpoint_(spec.path), remote_(control_->remote()) {
  constexpr int kDeepest = 8192;
  constexpr int kLongest = 256;
  constexpr int kMostInline = 1024;
  require(spec.count >= 1 && spec.count <= kMost, "queue pairs");
  require(spec.depth >= 1 && spec.depth <= kDeepest, "depth");
  require(spec.post_list >= 0 && spec.post_list <= std::min(kLongest, spec.depth), "post list");
  require(spec.inline_size >= -1 && spec.inline_size <= kMostInline, "inline");
  endpoint_.join({}, *control_, watch);  // where the other end is, and the MTU; no queue pair yet
}

// Small messages share a page, as those of a program that sends in turn would.
Memory::Memory(const QueuePairs& pairs, std::size_t count, std::size_t size)
    : stride_(up_to(size, kCacheLine)),
      slots_(pairs.spec().cold ? up_to(cold_bytes(), stride_) / stride_ / count + 1
                               : std::max<std::size_t>(1, kPage / stride_)),
      half_(up_to(count * slots_ * stride_, kPage)) {
  constexpr std::size_t kMostBytes = std::size_t{16} << 30;
  require(2 * half_ <= kMostBytes, "bytes of all queue pairs");
  unsigned access = verbs::kAccessLocalWrite | verbs::kAccessRemoteWrite | verbs::kAccessRemoteRead;
  if (pairs.spec().relaxed_ordering) access |= verbs::kAccessRelaxedOrdering;
  pairs.spec().gpu.empty() ? take_host(pairs, access) : take_gpu(pairs, access);
}

void Memory::take_host(const QueuePairs& pairs, unsigned access) {
  const bool huge = pairs.spec().huge_pages;
  size_ = up_to(2 * half_, huge ? kHugePage : kPage);
  void* found = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0), -1, 0);
  if (found == MAP_FAILED)
    throw Error(Fault::kDevice, pairs.endpoint().name() + (huge ? " huge pages" : " memory"),
                errno);
  base_ = reinterpret_cast<std::uintptr_t>(found);
  // Touched by the thread that measures: on its NUMA node, and no page fault within the run.
  std::memset(found, 0, size_);
  try {
    region_ = pairs.endpoint().region(base_, size_, access);
  } catch (...) {
    munmap(found, size_);
    throw;
  }
}

void Memory::take_gpu(const QueuePairs& pairs, unsigned access) {
  require(!pairs.spec().huge_pages, "huge pages of a GPU");
  size_ = up_to(2 * half_, kHugePage);  // of which a dma-buf is made in whole pages
  gpu_ = std::make_unique<GpuMemory>(Gpu(pairs.spec().gpu), size_);
  base_ = reinterpret_cast<std::uintptr_t>(gpu_->data());
  const int fd = gpu_->dma_buf();
  if (fd >= 0) {
    way_ = "dma-buf";
    region_ = pairs.endpoint().region_of(fd, base_, size_, access);
    close(fd);  // the registration holds on to it
  }
  if (!region_) {
    // The NVIDIA peer memory module makes a GPU's addresses known to the registration itself.
    way_ = "peermem";
    region_ = pairs.endpoint().region(base_, size_, access);
  }
}

Memory::~Memory() {
  region_.reset();
  if (!gpu_) munmap(host(base_), size_);
}

void Memory::fill(std::uint64_t address, std::size_t size, std::uint64_t seed) const {
  if (!gpu_) return fill_pattern(host(address), size, seed);
  std::vector<std::byte> pattern(size);
  fill_pattern(pattern.data(), size, seed);
  gpu_->gpu().write(host(address), pattern);
}

Mismatch Memory::check(std::uint64_t address, std::size_t size, std::uint64_t seed) const {
  if (!gpu_) return check_pattern(host(address), size, seed);
  std::vector<std::byte> found(size);
  gpu_->gpu().read(found, host(address));
  return check_pattern(found.data(), size, seed);
}

Joined::Joined(QueuePairs& pairs, std::size_t count, std::size_t send_depth,
               std::size_t receive_depth, int inline_size)
    : pairs_(pairs) {
  verbs::Endpoint& endpoint = pairs.endpoint();
  const verbs::Library& library = endpoint.library();
  verbs::Context& context = endpoint.context();
  poll_cq_ = context.ops.poll_cq;
  post_send_ = context.ops.post_send;
  post_recv_ = context.ops.post_recv;
  const auto queue = [&](std::size_t entries) {
    return verbs::CqPtr(
        verbs::made(library.create_cq(&context, static_cast<int>(entries), nullptr, nullptr, 0),
                    endpoint.name() + " create_cq"));
  };
  send_queue_ = queue(count * send_depth);
  receive_queue_ = queue(count * receive_depth);
  verbs::QpInitAttr wanted{};
  wanted.send_cq = send_queue_.get();
  wanted.recv_cq = receive_queue_.get();
  wanted.cap = {.max_send_wr = static_cast<std::uint32_t>(send_depth),
                .max_recv_wr = static_cast<std::uint32_t>(receive_depth),
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
  all_.reserve(count);
  built_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    all_.push_back(make(wanted, inline_size));
    built_.push_back(library.qp_to_qp_ex == nullptr ? nullptr
                                                    : library.qp_to_qp_ex(all_.back().get()));
  }
}

const char* Joined::posting() const noexcept {
  const bool all = std::find(built_.begin(), built_.end(), nullptr) == built_.end();
  return all ? "ibv_wr" : "ibv_post_send";
}

// One kind of request in a chain, so that it is chosen once and not for each of them.
int Joined::build(verbs::QpEx& queue_pair, const verbs::SendWr& chain) {
  const auto each = [&](auto begin) {
    for (const verbs::SendWr* request = &chain; request != nullptr; request = request->next) {
      const bool inlined = (request->send_flags & verbs::kSendInline) != 0;
      queue_pair.wr_id = request->wr_id;
      // That of inline data as well: soft-RoCE's kernel looks at it, where others go by the call.
      queue_pair.wr_flags = request->send_flags;
      begin(*request);
      const verbs::Sge& what = *request->sg_list;
      if (inlined)
        queue_pair.wr_set_inline_data(&queue_pair, reinterpret_cast<void*>(what.addr), what.length);
      else
        queue_pair.wr_set_sge(&queue_pair, what.lkey, what.addr, what.length);
    }
  };
  const auto remote = [&](auto* operation) {
    each([&](const verbs::SendWr& request) {
      operation(&queue_pair, request.rdma.rkey, request.rdma.remote_addr);
    });
  };
  queue_pair.wr_start(&queue_pair);
  if (chain.opcode == verbs::kWrRdmaWrite)
    remote(queue_pair.wr_rdma_write);
  else if (chain.opcode == verbs::kWrRdmaRead)
    remote(queue_pair.wr_rdma_read);
  else
    each([&](const verbs::SendWr&) { queue_pair.wr_send(&queue_pair); });
  return queue_pair.wr_complete(&queue_pair);
}

// How much goes inline a device tells only by refusing more. 220 bytes fit into a request of 256 of
// the NICs that are common; perftest asks for as much.
verbs::QpPtr Joined::make(verbs::QpInitAttr& wanted, int inline_size) {
  constexpr std::uint32_t kCommon = 220;
  constexpr std::uint64_t kOperations =
      verbs::kWithRdmaWrite | verbs::kWithRdmaRead | verbs::kWithSend;
  wanted.cap.max_inline_data = inline_size < 0 ? kCommon : static_cast<std::uint32_t>(inline_size);
  verbs::QpInitAttr asked = wanted;
  verbs::QpPtr made;
  try {
    made = pairs_.endpoint().queue_pair(asked, kOperations);
  } catch (const Error&) {
    if (inline_size >= 0) throw;
    asked = wanted;
    asked.cap.max_inline_data = 0;
    made = pairs_.endpoint().queue_pair(asked, kOperations);
  }
  inline_size_ = inline_size == 0 ? 0 : asked.cap.max_inline_data;
  return made;
}

void Joined::join(const Watch& watch) { pairs_.endpoint().join(all_, pairs_.control(), watch); }

std::size_t Joined::poll(verbs::Cq* queue, std::span<verbs::Wc> out) const {
  const int got = poll_cq_(queue, static_cast<int>(out.size()), out.data());
  if (got < 0) refuse(-got);
  const auto n = static_cast<std::size_t>(got);
  for (std::size_t i = 0; i < n; ++i) {
    if (out[i].status == verbs::kWcSuccess) continue;
    const int code = out[i].status == verbs::kWcRetryExceeded ? ETIMEDOUT : EIO;
    throw Error(Fault::kTransfer, pairs_.remote(), code,
                std::string(pairs_.endpoint().library().wc_status_str(out[i].status)) +
                    " (status " + std::to_string(out[i].status) + ", vendor error " +
                    std::to_string(out[i].vendor_err) + ", queue pair " +
                    std::to_string(out[i].qp_num) + ")");
  }
  return n;
}

void Joined::refuse(int failed) const { throw Error(Fault::kTransfer, pairs_.remote(), failed); }

}  // namespace cwai

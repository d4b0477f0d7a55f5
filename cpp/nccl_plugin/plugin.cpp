#include "nccl_plugin/plugin.hpp"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nccl_plugin/comm.hpp"
#include "nccl_plugin/door.hpp"
#include "nccl_plugin/gpus.hpp"
#include "nccl_plugin/log.hpp"
#include "nccl_plugin/nics.hpp"
#include "nccl_plugin/status.hpp"
#include "support/error.hpp"

namespace cwai::nccl_net {
namespace {

// All interfaces of this process together. Never taken down: threads look at it until the process
// ends, and NCCL may come again after its last communicator.
struct Device {
  Settings settings;
  std::vector<Rail> rails;                // of TCP, then of RDMA
  Transport transport = Transport::kTcp;  // to whoever has the same
  int pointers = kPtrHost;                // kinds of memory
  int speed = 0;                          // Mb/s
  std::string pci_path;                   // where it is one card
  std::unique_ptr<Door> door;
  std::unique_ptr<StatusServer> status;
  std::mutex mutex;
  std::map<Token, std::shared_ptr<SendComm>> connecting;
};

struct Process {
  std::mutex mutex;
  Device* device = nullptr;  // once init() was good
};
Process& process() {
  static Process* const one = new Process;
  return *one;
}

// Before the process ends, what is still to be said to other processes is said.
struct LastWords {
  ~LastWords() { Comm::wait_for_all(kSecond); }
};

int speed_of(const Rail& rail) {
  constexpr int kUnknown = 10'000;  // as NCCL takes it for (src/transport/net_socket.cc)
  if (rail.rdma()) return rail.speed > 0 ? rail.speed : kUnknown;
  std::ifstream file("/sys/class/net/" + rail.name + "/speed");
  int speed = 0;
  return file >> speed && speed > 0 ? speed : kUnknown;
}

std::string list(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

// RDMA rails, or none and why.
std::vector<Rail> find_nics(const Settings& settings, const std::vector<Rail>& rails,
                            const std::vector<InterfaceAddress>& here, std::string& why) {
  NicsHere nics;
  try {
    nics = nics_here(settings.nic.gid_index);
  } catch (const Error& error) {
    why = error.what();
    return {};
  }
  auto found = choose_nics(settings, nics.ports, here, rails);
  if (found.empty() && !nics.ports.empty())
    why = "NCCL_IB_HCA=" + settings.hcas + " names none that is up";
  else if (found.empty())
    why = "no RDMA device is up" + (nics.left_out.empty() ? "" : ": " + list(nics.left_out));
  return found;
}

// Where the card is, as NCCL looks for GPUs near it; several are nowhere in particular.
std::string place_of(const std::vector<Rail>& nics) {
  if (nics.size() != 1) return "";
  std::error_code none;
  return std::filesystem::canonical("/sys/class/infiniband/" + nics[0].device + "/device", none);
}

// Kinds of memory that all of ``nics`` reach.
int pointers_of(const std::vector<Rail>& nics) {
  const GpuReach gpus = gpu_reach();
  const bool dma_bufs = gpus.dma_buf && std::all_of(nics.begin(), nics.end(),
                                                    [](const Rail& nic) { return nic.dma_bufs; });
  if (dma_bufs || gpus.peermem)
    inform(std::string("memory of GPUs by ") + (dma_bufs ? "dma-buf" : "nvidia_peermem"));
  else
    inform("memory of the host only: " +
           (gpus.why_not.empty() ? "a NIC registers no dma-bufs" : gpus.why_not));
  return kPtrHost | (dma_bufs ? kPtrDmaBuf : 0) | (gpus.peermem ? kPtrCuda : 0);
}

std::unique_ptr<Device> make_device() {
  auto device = std::make_unique<Device>();
  device->settings = read_settings(environment());
  const Settings& settings = device->settings;
  for (const std::string& line : settings.wrong) warn(line);
  const auto here = interface_addresses();
  device->rails = choose_rails(settings, here);
  std::string why = "CWAI_NET_TRANSPORT or NCCL_IB_DISABLE says so";
  if (settings.transport != Transport::kTcp) {
    auto nics = find_nics(settings, device->rails, here, why);
    if (!nics.empty()) device->transport = Transport::kRdma;
    if (nics.empty() && settings.transport == Transport::kRdma)
      throw Error(Fault::kAddress, "CWAI_NET_TRANSPORT=rdma: " + why);
    if (nics.empty() && !settings.hcas.empty()) warn("over TCP: " + why);
    std::move(nics.begin(), nics.end(), std::back_inserter(device->rails));
  }
  const bool rdma = device->transport == Transport::kRdma;
  auto unused = settings.unused;
  if (!rdma) unused.insert(unused.end(), settings.rdma_only.begin(), settings.rdma_only.end());
  if (!unused.empty())
    inform(std::string("of no use ") + (rdma ? "here" : "over TCP") +
           ", and not looked at: " + list(unused));
  device->door = std::make_unique<Door>(device->rails, settings);
  device->status = std::make_unique<StatusServer>(device->rails, settings);
  std::vector<std::string> told;
  const auto used = usable(device->rails, device->transport);
  if (rdma) {
    device->pointers = pointers_of(used);
    device->pci_path = place_of(used);
  }
  for (const Rail& rail : used) {
    device->speed += speed_of(rail);
    told.push_back(rail.name == rail.address ? rail.name : rail.name + " " + rail.address);
  }
  if (told.empty()) throw Error(Fault::kListen, "no path by RDMA can be listened for");
  inform(std::string(rdma ? "RDMA" : "TCP") + (rdma ? "" : " (" + why + ")") + ", paths by " +
         list(told) + "; " + std::to_string(settings.connections) +
         " connections on each, what is lost is " + (settings.resend ? "" : "not ") +
         "sent again, a request fails after " + std::to_string(settings.timeout / kSecond) +
         " s without a path");
  return device;
}

Device& device() {
  Process& all = process();
  const std::lock_guard lock(all.mutex);
  if (all.device == nullptr) throw Error(Fault::kInvalid, "init() was not called");
  return *all.device;
}

// Nothing that we throw gets into NCCL.
template <typename Body>
Result guarded(const char* what, const Body& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    warn(std::string(what) + ": " + error.what());
    const bool asked = error.fault() == Fault::kAddress;
    return asked ? kInvalidUsage : error.fault() == Fault::kInvalid ? kInternalError : kSystemError;
  } catch (const std::exception& error) {
    warn(std::string(what) + ": " + error.what());
    return kSystemError;
  }
}

// What NCCL holds of a comm, or of what listens: an owner of it, in a box.
template <typename Held>
void* boxed(std::shared_ptr<Held> held) {
  return new std::shared_ptr<Held>(std::move(held));
}
template <typename Held>
std::shared_ptr<Held>& unboxed(void* box) {
  if (box == nullptr) throw Error(Fault::kInvalid, "no comm");
  return *static_cast<std::shared_ptr<Held>*>(box);
}
// NCCL registers memory with either kind of comm, and does not say with which.
template <typename Kind>
Kind& comm_of(void* box) {
  return static_cast<Kind&>(*unboxed<Comm>(box));
}

Result close_comm(const char* what, void* comm) noexcept {
  return guarded(what, [&] {
    auto& held = unboxed<Comm>(comm);
    held->close();
    delete &held;
    return kSuccess;
  });
}

// What a NIC was told of. What was not is memory of the host: of a comm over TCP there is none.
struct Memory {
  std::span<const std::byte> bytes;
  bool ours;
};

bool is_ours(const void* mhandle) {
  return mhandle == nullptr || static_cast<const Memory*>(mhandle)->ours;
}

template <typename Lend>
Result register_memory(const char* what, void* comm, void* data, std::size_t size, int type,
                       void** mhandle, const Lend& lend) noexcept {
  return guarded(what, [&] {
    *mhandle = nullptr;
    auto& held = *unboxed<Comm>(comm);
    if (type != kPtrHost && !held.over_rdma())
      throw Error(Fault::kInvalid,
                  "memory of a GPU over TCP: one end of this connection has no "
                  "RDMA; set NCCL_NET_GDR_LEVEL=LOC, or CWAI_NET_TRANSPORT=tcp "
                  "on all nodes");
    if (!held.over_rdma() || size == 0) return kSuccess;
    auto memory = std::make_unique<Memory>(
        Memory{{static_cast<const std::byte*>(data), size}, type == kPtrHost});
    lend(held, memory->bytes);
    *mhandle = memory.release();
    return kSuccess;
  });
}

}  // namespace

Result init(Logger logger) noexcept {
  return guarded("init", [&] {
    if (logger != nullptr) log_with(logger);
    Process& all = process();
    const std::lock_guard lock(all.mutex);
    if (all.device == nullptr) {
      all.device = make_device().release();
      static const LastWords last;
    }
    return kSuccess;
  });
}

Result devices(int* count) noexcept {
  return guarded("devices", [&] {
    device();
    *count = 1;
    return kSuccess;
  });
}

Result describe(int number, Properties12* properties) noexcept {
  return guarded("getProperties", [&] {
    if (number != 0) throw Error(Fault::kInvalid, "device " + std::to_string(number));
    Device& one = device();
    *properties = {
        .name = const_cast<char*>(kName),  // NCCL only reads it
        .pci_path = one.pci_path.empty() ? nullptr : const_cast<char*>(one.pci_path.c_str()),
        .guid = 0,
        .ptr_support = one.pointers,
        // Over RDMA memory is registered with the NICs of one comm.
        .reg_is_global = one.transport == Transport::kTcp ? 1 : 0,
        .force_flush = 0,
        .speed = one.speed,
        .port = 0,
        .latency = 0,
        .max_comms = 65536,
        .max_recvs = 1,
        .device_type = kDeviceHost,
        .device_version = kNoDeviceVersion,
        .parts = {.count = 1, .devices = {}},
        .max_p2p_bytes = kMostBytes,
        .max_coll_bytes = kMostBytes,
        .max_multi_request = 1,
        .rail_id = kNoId,
        .plane_id = kNoId,
    };
    return kSuccess;
  });
}

Result listen(int number, void* handle, void** listen_comm) noexcept {
  return guarded("listen", [&] {
    if (number != 0) throw Error(Fault::kInvalid, "device " + std::to_string(number));
    Device& one = device();
    auto listening = one.door->listen();
    Invitation invitation{.token = listening->token, .places = {}};
    for (const Rail& rail : one.rails) invitation.places.push_back({rail.address, rail.port});
    write_handle(invitation,
                 std::span<std::byte, kHandleBytes>(static_cast<std::byte*>(handle), kHandleBytes));
    *listen_comm = boxed(std::move(listening));
    return kSuccess;
  });
}

// NCCL calls it again and again with the same handle: what goes on is known by its token.
Result connect(int number, void* handle, void** send_comm) noexcept {
  return guarded("connect", [&] {
    *send_comm = nullptr;
    if (number != 0) throw Error(Fault::kInvalid, "device " + std::to_string(number));
    const auto invitation = read_handle(std::span<const std::byte, kHandleBytes>(
        static_cast<const std::byte*>(handle), kHandleBytes));
    if (!invitation)
      throw Error(Fault::kAddress,
                  "the other end has another plugin, or another version of this one");
    Device& one = device();
    const std::lock_guard lock(one.mutex);
    auto& comm = one.connecting[invitation->token];
    try {
      if (comm == nullptr) {
        comm = std::make_shared<SendComm>(*invitation, one.rails, one.settings);
        comm->start();
        one.status->add(comm);
      }
    } catch (...) {
      one.connecting.erase(invitation->token);
      throw;
    }
    const Result result = comm->failure();
    if (result == kSuccess && !comm->connected()) return kSuccess;
    if (result == kSuccess) *send_comm = boxed<Comm>(std::move(comm));
    one.connecting.erase(invitation->token);
    return result;
  });
}

Result accept(void* listen_comm, void** recv_comm) noexcept {
  return guarded("accept", [&] {
    *recv_comm = nullptr;
    Device& one = device();
    auto comm = one.door->next(*unboxed<Listening>(listen_comm));
    if (comm == nullptr) return kSuccess;
    one.status->add(comm);
    *recv_comm = boxed<Comm>(std::move(comm));
    return kSuccess;
  });
}

Result reg_mr(void* comm, void* data, std::size_t size, int type, void** mhandle) noexcept {
  return register_memory("regMr", comm, data, size, type, mhandle,
                         [](Comm& held, std::span<const std::byte> bytes) { held.lend(bytes); });
}

Result reg_mr_dma_buf(void* comm, void* data, std::size_t size, int type, std::uint64_t offset,
                      int fd, void** mhandle) noexcept {
  return register_memory(
      "regMrDmaBuf", comm, data, size, type, mhandle,
      [&](Comm& held, std::span<const std::byte> bytes) { held.lend(bytes, fd, offset); });
}

Result dereg_mr(void* comm, void* mhandle) noexcept {
  return guarded("deregMr", [&] {
    if (mhandle == nullptr) return kSuccess;
    const std::unique_ptr<Memory> memory(static_cast<Memory*>(mhandle));
    unboxed<Comm>(comm)->take_back(memory->bytes);
    return kSuccess;
  });
}

Result isend(void* comm, void* data, std::size_t size, int tag, void* mhandle,
             void** request) noexcept {
  return guarded("isend", [&] {
    Request* slot = nullptr;
    const Result result =
        comm_of<SendComm>(comm).isend({static_cast<std::byte*>(data), size},
                                      static_cast<std::uint32_t>(tag), is_ours(mhandle), &slot);
    *request = slot;
    return result;
  });
}

Result irecv(void* comm, int n, void* const* data, const std::size_t* sizes, const int* tags,
             void* const* mhandles, void** request) noexcept {
  return guarded("irecv", [&] {
    if (n != 1) throw Error(Fault::kInvalid, std::to_string(n) + " buffers in one receive");
    Request* slot = nullptr;
    const Result result = comm_of<RecvComm>(comm).irecv(
        {static_cast<std::byte*>(data[0]), sizes[0]}, static_cast<std::uint32_t>(tags[0]),
        is_ours(mhandles == nullptr ? nullptr : mhandles[0]), &slot);
    *request = slot;
    return result;
  });
}

Result iflush(int n, const int* sizes, void* const* mhandles, void** request) noexcept {
  return guarded("iflush", [&] {
    *request = nullptr;
    for (int i = 0; i < n; ++i) {
      if (mhandles == nullptr || is_ours(mhandles[i]) || sizes[i] == 0) continue;
      flush_gpu();
      break;
    }
    return kSuccess;
  });
}

Result test(void* request, int* done, int* sizes) noexcept {
  return guarded("test", [&] {
    if (request == nullptr) throw Error(Fault::kInvalid, "no request");
    auto& slot = *static_cast<Request*>(request);
    return slot.comm->test(slot, done, sizes);
  });
}

Result close_send(void* comm) noexcept { return close_comm("closeSend", comm); }
Result close_recv(void* comm) noexcept { return close_comm("closeRecv", comm); }

Result close_listen(void* comm) noexcept {
  return guarded("closeListen", [&] {
    auto& held = unboxed<Listening>(comm);
    device().door->close(*held);
    delete &held;
    return kSuccess;
  });
}

}  // namespace cwai::nccl_net

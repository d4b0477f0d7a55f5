#include "nccl_plugin/plugin.hpp"

#include <algorithm>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nccl_plugin/comm.hpp"
#include "nccl_plugin/door.hpp"
#include "nccl_plugin/log.hpp"
#include "nccl_plugin/status.hpp"
#include "support/error.hpp"

namespace cwai::nccl_net {
namespace {

// All interfaces of this process together. Never taken down: threads look at it until the process
// ends, and NCCL may come again after its last communicator.
struct Device {
  Settings settings;
  std::vector<Rail> rails;
  int speed = 0;  // Mb/s
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
  std::ifstream file("/sys/class/net/" + rail.name + "/speed");
  int speed = 0;
  return file >> speed && speed > 0 ? speed : kUnknown;
}

std::string list(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

std::unique_ptr<Device> make_device() {
  auto device = std::make_unique<Device>();
  device->settings = read_settings(environment());
  const Settings& settings = device->settings;
  for (const std::string& line : settings.wrong) warn(line);
  if (!settings.unused.empty())
    inform("of no use over TCP, and not looked at: " + list(settings.unused));
  device->rails = choose_rails(settings, interface_addresses());
  device->door = std::make_unique<Door>(device->rails, settings);
  device->status = std::make_unique<StatusServer>(device->rails, settings);
  std::vector<std::string> told;
  for (const Rail& rail : device->rails) {
    device->speed += speed_of(rail);
    told.push_back(rail.name == rail.address ? rail.name : rail.name + " " + rail.address);
  }
  inform("paths by " + list(told) + "; " + std::to_string(settings.connections) +
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

// What NCCL holds of a comm: an owner of it, in a box.
template <typename Held>
void* boxed(std::shared_ptr<Held> held) {
  return new std::shared_ptr<Held>(std::move(held));
}
template <typename Held>
std::shared_ptr<Held>& unboxed(void* box) {
  if (box == nullptr) throw Error(Fault::kInvalid, "no comm");
  return *static_cast<std::shared_ptr<Held>*>(box);
}

template <typename Kind>
Result close_comm(const char* what, void* comm) noexcept {
  return guarded(what, [&] {
    auto& held = unboxed<Kind>(comm);
    held->close();
    delete &held;
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
    const Device& one = device();
    *properties = {
        .name = const_cast<char*>(kName),  // NCCL only reads it
        .pci_path = nullptr,               // several cards, in general
        .guid = 0,
        .ptr_support = kPtrHost,
        .reg_is_global = 1,
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
    if (result == kSuccess) *send_comm = boxed(std::move(comm));
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
    *recv_comm = boxed(std::move(comm));
    return kSuccess;
  });
}

Result reg_mr(int type, void** mhandle) noexcept {
  return guarded("regMr", [&] {
    *mhandle = nullptr;  // memory of the host needs none
    if (type != kPtrHost)
      throw Error(Fault::kInvalid, "memory of type " + std::to_string(type) + ": host memory only");
    return kSuccess;
  });
}

Result isend(void* comm, void* data, std::size_t size, int tag, void** request) noexcept {
  return guarded("isend", [&] {
    Request* slot = nullptr;
    const Result result = unboxed<SendComm>(comm)->isend({static_cast<std::byte*>(data), size},
                                                         static_cast<std::uint32_t>(tag), &slot);
    *request = slot;
    return result;
  });
}

Result irecv(void* comm, int n, void* const* data, const std::size_t* sizes, const int* tags,
             void** request) noexcept {
  return guarded("irecv", [&] {
    if (n != 1) throw Error(Fault::kInvalid, std::to_string(n) + " buffers in one receive");
    Request* slot = nullptr;
    const Result result = unboxed<RecvComm>(comm)->irecv(
        {static_cast<std::byte*>(data[0]), sizes[0]}, static_cast<std::uint32_t>(tags[0]), &slot);
    *request = slot;
    return result;
  });
}

Result test(void* request, int* done, int* sizes) noexcept {
  return guarded("test", [&] {
    if (request == nullptr) throw Error(Fault::kInvalid, "no request");
    auto& slot = *static_cast<Request*>(request);
    return slot.comm->test(slot, done, sizes);
  });
}

Result close_send(void* comm) noexcept { return close_comm<SendComm>("closeSend", comm); }
Result close_recv(void* comm) noexcept { return close_comm<RecvComm>("closeRecv", comm); }

Result close_listen(void* comm) noexcept {
  return guarded("closeListen", [&] {
    auto& held = unboxed<Listening>(comm);
    device().door->close(*held);
    delete &held;
    return kSuccess;
  });
}

}  // namespace cwai::nccl_net

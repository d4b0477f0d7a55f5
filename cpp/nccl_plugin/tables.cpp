// The tables that NCCL looks for by name, the newest that it knows first. Thin: what differs from
// version to version, and no more.
#include "nccl_plugin/net_abi.hpp"
#include "nccl_plugin/plugin.hpp"

namespace cwai::nccl_net {
namespace {

// ------------------------------------------------------------------------------------ what it says

Result properties8(int device, Properties8* into) {
  Properties12 all{};
  const Result result = describe(device, &all);
  *into = {.name = all.name,
           .pci_path = all.pci_path,
           .guid = all.guid,
           .ptr_support = all.ptr_support,
           .reg_is_global = all.reg_is_global,
           .speed = all.speed,
           .port = all.port,
           .latency = all.latency,
           .max_comms = all.max_comms,
           .max_recvs = all.max_recvs,
           .device_type = all.device_type,
           .device_version = all.device_version};
  return result;
}

Result properties9(int device, Properties9* into) {
  Properties12 all{};
  const Result result = describe(device, &all);
  *into = {.name = all.name,
           .pci_path = all.pci_path,
           .guid = all.guid,
           .ptr_support = all.ptr_support,
           .reg_is_global = all.reg_is_global,
           .force_flush = all.force_flush,
           .speed = all.speed,
           .port = all.port,
           .latency = all.latency,
           .max_comms = all.max_comms,
           .max_recvs = all.max_recvs,
           .device_type = all.device_type,
           .device_version = all.device_version,
           .parts = {.count = 1, .devices = {}},
           .max_p2p_bytes = all.max_p2p_bytes,
           .max_coll_bytes = all.max_coll_bytes};
  return result;
}

Result properties11(int device, Properties11* into) {
  into->max_multi_request = 1;
  return properties9(device, &into->common);
}

Result properties12(int device, Properties12* into) { return describe(device, into); }

// ------------------------------------------------------------------------------------- what it
// does

Result init8(Logger logger) { return init(logger); }
Result init10(Logger logger, ProfilerCallback) { return init(logger); }
// One device serves all communicators, so there is nothing to be told apart by a context; NCCL only
// hands it back.
Result init11(void** context, std::uint64_t, CommConfig*, Logger logger, ProfilerCallback) {
  *context = nullptr;
  return init(logger);
}
Result finalize11(void*) { return kSuccess; }
Result set_attributes11(void*, NetAttributes*) { return kSuccess; }

Result devices8(int* count) { return devices(count); }
Result listen8(int device, void* handle, void** comm) { return listen(device, handle, comm); }
Result listen11(void*, int device, void* handle, void** comm) {
  return listen(device, handle, comm);
}
Result connect8(int device, void* handle, void** comm, DeviceHandle**) {
  return connect(device, handle, comm);
}
Result connect10(int device, CommConfig*, void* handle, void** comm, DeviceHandle**) {
  return connect(device, handle, comm);
}
Result connect11(void*, int device, void* handle, void** comm, DeviceHandle**) {
  return connect(device, handle, comm);
}
Result accept8(void* listening, void** comm, DeviceHandle**) { return accept(listening, comm); }

Result reg_mr8(void* comm, void* data, std::size_t size, int type, void** mhandle) {
  return reg_mr(comm, data, size, type, mhandle);
}
Result reg_mr_dma_buf8(void* comm, void* data, std::size_t size, int type, std::uint64_t offset,
                       int fd, void** mhandle) {
  return reg_mr_dma_buf(comm, data, size, type, offset, fd, mhandle);
}
Result dereg_mr8(void* comm, void* mhandle) { return dereg_mr(comm, mhandle); }

Result isend8(void* comm, void* data, int size, int tag, void* mhandle, void** request) {
  return size < 0 ? kInternalError
                  : isend(comm, data, static_cast<std::size_t>(size), tag, mhandle, request);
}
Result isend9(void* comm, void* data, std::size_t size, int tag, void* mhandle, void** request) {
  return isend(comm, data, size, tag, mhandle, request);
}
Result isend10(void* comm, void* data, std::size_t size, int tag, void* mhandle, void*,
               void** request) {
  return isend(comm, data, size, tag, mhandle, request);
}

Result irecv8(void* comm, int n, void** data, int* sizes, int* tags, void** mhandles,
              void** request) {
  if (n < 1 || sizes[0] < 0) return kInternalError;
  const auto size = static_cast<std::size_t>(sizes[0]);
  return irecv(comm, n, data, &size, tags, mhandles, request);
}
Result irecv9(void* comm, int n, void** data, std::size_t* sizes, int* tags, void** mhandles,
              void** request) {
  return irecv(comm, n, data, sizes, tags, mhandles, request);
}
// Before it, ``request`` may say that the completion is not waited for (2.24 on): we always tell
// it.
Result irecv10(void* comm, int n, void** data, std::size_t* sizes, int* tags, void** mhandles,
               void**, void** request) {
  return irecv(comm, n, data, sizes, tags, mhandles, request);
}

Result iflush8(void*, int n, void**, int* sizes, void** mhandles, void** request) {
  return iflush(n, sizes, mhandles, request);
}
Result test8(void* request, int* done, int* sizes) { return test(request, done, sizes); }
Result close_send8(void* comm) { return close_send(comm); }
Result close_recv8(void* comm) { return close_recv(comm); }
Result close_listen8(void* comm) { return close_listen(comm); }

}  // namespace
}  // namespace cwai::nccl_net

// A program that is linked with these sees them as its own; in the library they are all that shows.
#define CWAI_EXPORTED extern "C" __attribute__((visibility("default"))) const

namespace net = cwai::nccl_net;

CWAI_EXPORTED net::Table8 ncclNetPlugin_v8 = {.name = net::kName,
                                              .init = net::init8,
                                              .devices = net::devices8,
                                              .get_properties = net::properties8,
                                              .listen = net::listen8,
                                              .connect = net::connect8,
                                              .accept = net::accept8,
                                              .reg_mr = net::reg_mr8,
                                              .reg_mr_dma_buf = net::reg_mr_dma_buf8,
                                              .dereg_mr = net::dereg_mr8,
                                              .isend = net::isend8,
                                              .irecv = net::irecv8,
                                              .iflush = net::iflush8,
                                              .test = net::test8,
                                              .close_send = net::close_send8,
                                              .close_recv = net::close_recv8,
                                              .close_listen = net::close_listen8,
                                              .get_device_mr = nullptr,
                                              .irecv_consumed = nullptr};

CWAI_EXPORTED net::Table9 ncclNetPlugin_v9 = {.name = net::kName,
                                              .init = net::init8,
                                              .devices = net::devices8,
                                              .get_properties = net::properties9,
                                              .listen = net::listen8,
                                              .connect = net::connect8,
                                              .accept = net::accept8,
                                              .reg_mr = net::reg_mr8,
                                              .reg_mr_dma_buf = net::reg_mr_dma_buf8,
                                              .dereg_mr = net::dereg_mr8,
                                              .isend = net::isend9,
                                              .irecv = net::irecv9,
                                              .iflush = net::iflush8,
                                              .test = net::test8,
                                              .close_send = net::close_send8,
                                              .close_recv = net::close_recv8,
                                              .close_listen = net::close_listen8,
                                              .get_device_mr = nullptr,
                                              .irecv_consumed = nullptr,
                                              .make_virtual_device = nullptr};

CWAI_EXPORTED net::Table10 ncclNetPlugin_v10 = {.name = net::kName,
                                                .init = net::init10,
                                                .devices = net::devices8,
                                                .get_properties = net::properties9,
                                                .listen = net::listen8,
                                                .connect = net::connect10,
                                                .accept = net::accept8,
                                                .reg_mr = net::reg_mr8,
                                                .reg_mr_dma_buf = net::reg_mr_dma_buf8,
                                                .dereg_mr = net::dereg_mr8,
                                                .isend = net::isend10,
                                                .irecv = net::irecv10,
                                                .iflush = net::iflush8,
                                                .test = net::test8,
                                                .close_send = net::close_send8,
                                                .close_recv = net::close_recv8,
                                                .close_listen = net::close_listen8,
                                                .get_device_mr = nullptr,
                                                .irecv_consumed = nullptr,
                                                .make_virtual_device = nullptr};

CWAI_EXPORTED net::Table11 ncclNetPlugin_v11 = {.name = net::kName,
                                                .init = net::init11,
                                                .devices = net::devices8,
                                                .get_properties = net::properties11,
                                                .listen = net::listen11,
                                                .connect = net::connect11,
                                                .accept = net::accept8,
                                                .reg_mr = net::reg_mr8,
                                                .reg_mr_dma_buf = net::reg_mr_dma_buf8,
                                                .dereg_mr = net::dereg_mr8,
                                                .isend = net::isend10,
                                                .irecv = net::irecv10,
                                                .iflush = net::iflush8,
                                                .test = net::test8,
                                                .close_send = net::close_send8,
                                                .close_recv = net::close_recv8,
                                                .close_listen = net::close_listen8,
                                                .get_device_mr = nullptr,
                                                .irecv_consumed = nullptr,
                                                .make_virtual_device = nullptr,
                                                .finalize = net::finalize11,
                                                .set_net_attributes = net::set_attributes11};

CWAI_EXPORTED net::Table12 ncclNetPlugin_v12 = {.name = net::kName,
                                                .init = net::init11,
                                                .devices = net::devices8,
                                                .get_properties = net::properties12,
                                                .listen = net::listen11,
                                                .connect = net::connect11,
                                                .accept = net::accept8,
                                                .reg_mr = net::reg_mr8,
                                                .reg_mr_dma_buf = net::reg_mr_dma_buf8,
                                                .dereg_mr = net::dereg_mr8,
                                                .isend = net::isend10,
                                                .irecv = net::irecv10,
                                                .iflush = net::iflush8,
                                                .test = net::test8,
                                                .close_send = net::close_send8,
                                                .close_recv = net::close_recv8,
                                                .close_listen = net::close_listen8,
                                                .get_device_mr = nullptr,
                                                .irecv_consumed = nullptr,
                                                .make_virtual_device = nullptr,
                                                .finalize = net::finalize11,
                                                .set_net_attributes = net::set_attributes11};

// libibverbs, opened at run time. It must be the system's own: its providers register with the copy
// that loads them, so it is never bundled.
#pragma once

#include <memory>
#include <string>

#include "support/dynamic_library.hpp"
#include "verbs/abi.hpp"

namespace cwai::verbs {

class Library {
 public:
  /// Throws Error(kLibrary) when there is no libibverbs, or an older one than 1.1.
  static const Library& get();

  Device** (*get_device_list)(int*);
  void (*free_device_list)(Device**);
  const char* (*get_device_name)(Device*);
  Context* (*open_device)(Device*);
  int (*close_device)(Context*);
  int (*query_device)(Context*, DeviceAttr*);
  int (*query_port)(Context*, std::uint8_t, PortAttr*);
  int (*query_gid)(Context*, std::uint8_t, int, Gid*);
  int (*get_async_event)(Context*, AsyncEvent*);
  void (*ack_async_event)(AsyncEvent*);
  Pd* (*alloc_pd)(Context*);
  int (*dealloc_pd)(Pd*);
  Mr* (*reg_mr)(Pd*, void*, std::size_t, int);
  /// With optional kinds of access. Null before libibverbs 1.8 (rdma-core 27).
  Mr* (*reg_mr_iova2)(Pd*, void*, std::size_t, std::uint64_t, unsigned) = nullptr;
  /// Of a dma-buf. Null before libibverbs 1.12 (rdma-core 34).
  Mr* (*reg_dmabuf_mr)(Pd*, std::uint64_t, std::size_t, std::uint64_t, int, int) = nullptr;
  int (*dereg_mr)(Mr*);
  CompChannel* (*create_comp_channel)(Context*);
  int (*destroy_comp_channel)(CompChannel*);
  Cq* (*create_cq)(Context*, int, void*, CompChannel*, int);
  int (*destroy_cq)(Cq*);
  int (*get_cq_event)(CompChannel*, Cq**, void**);
  void (*ack_cq_events)(Cq*, unsigned);
  Qp* (*create_qp)(Pd*, QpInitAttr*);
  /// Null when requests cannot be built in a queue pair. Itself null before libibverbs 1.6
  /// (rdma-core 24).
  QpEx* (*qp_to_qp_ex)(Qp*) = nullptr;
  int (*modify_qp)(Qp*, QpAttr*, int);
  int (*destroy_qp)(Qp*);
  const char* (*wc_status_str)(int);

 private:
  Library();
  DynamicLibrary library_;
};

/// Frees what the library made by one of its own functions.
template <typename T, int (*Library::*kFree)(T*)>
struct Freed {
  void operator()(T* p) const noexcept { (Library::get().*kFree)(p); }
};

using ContextPtr = std::unique_ptr<Context, Freed<Context, &Library::close_device>>;
using PdPtr = std::unique_ptr<Pd, Freed<Pd, &Library::dealloc_pd>>;
using MrPtr = std::unique_ptr<Mr, Freed<Mr, &Library::dereg_mr>>;
using ChannelPtr = std::unique_ptr<CompChannel, Freed<CompChannel, &Library::destroy_comp_channel>>;
using CqPtr = std::unique_ptr<Cq, Freed<Cq, &Library::destroy_cq>>;
using QpPtr = std::unique_ptr<Qp, Freed<Qp, &Library::destroy_qp>>;

/// The device ``name`` (``mlx5_0``), opened. Throws Error(kDevice): there is none of that name, or
/// it cannot be opened (errno).
ContextPtr open(const std::string& name);

struct PortChoice {
  PortAttr attr;
  Gid gid;
  int gid_index;
  bool v2;  ///< Of RoCE.
};

/// The port and the GID by which it is spoken to: ``gid_index``, or, when that is negative, on
/// Ethernet the first RoCE v2 GID with an IPv4 address, else the first with a routable IPv6
/// address, else the first of RoCE v2, else the first there is; on InfiniBand the first. Throws
/// Error(kDevice): no such port, not active, no such GID.
PortChoice choose(Context& context, const std::string& device, int port, int gid_index);

}  // namespace cwai::verbs

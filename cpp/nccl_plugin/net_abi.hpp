// The binary interface of NCCL's net plugins, versions 8 to 12, as plugins/net/ of NVIDIA/nccl
// documents it (README.md and the headers of its example, NCCL 2.19 to 2.30). In words of ours:
// what NCCL reads of it is the order and the size of fields, which the assertions below hold fast
// for the ABI of 64-bit Linux. tests/cpp/test_nccl_net_abi.cpp holds it against those headers where
// they are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace cwai::nccl_net {

enum Result : int {
  kSuccess = 0,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
};

enum LogLevel : int { kLogWarn = 2, kLogInfo = 3 };
constexpr unsigned long kLogInit = 1, kLogNet = 16;  // what a line is about

using Logger = void (*)(LogLevel level, unsigned long about, const char* file, int line,
                        const char* format, ...);
using ProfilerCallback = Result (*)(void** event, int type, void* phandle, std::int64_t plugin,
                                    void* data);

constexpr std::size_t kHandleBytes = 128;
constexpr std::size_t kRequests = 32;  // NCCL_NET_MAX_REQUESTS: of one comm, at once
constexpr int kPtrHost = 1, kPtrCuda = 2, kPtrDmaBuf = 4;
constexpr int kDeviceHost = 0, kNoDeviceVersion = 0;  // no part of it runs on a card
constexpr std::size_t kMostBytes = std::size_t{1} << 40;
constexpr std::int16_t kNoId = -1;

struct DeviceHandle;  // for plugins that run on a card: never made here

template <std::size_t kMost>
struct VirtualDevice {
  int count;
  std::array<int, kMost> devices;
};

struct Properties8 {
  char* name;
  char* pci_path;
  std::uint64_t guid;
  int ptr_support;
  int reg_is_global;
  int speed;  // Mb/s
  int port;
  float latency;  // us
  int max_comms;
  int max_recvs;
  int device_type;
  int device_version;
};

struct Properties9 {
  char* name;
  char* pci_path;
  std::uint64_t guid;
  int ptr_support;
  int reg_is_global;
  int force_flush;
  int speed;
  int port;
  float latency;
  int max_comms;
  int max_recvs;
  int device_type;
  int device_version;
  VirtualDevice<4> parts;
  std::size_t max_p2p_bytes;
  std::size_t max_coll_bytes;
};
using Properties10 = Properties9;

struct Properties11 {
  Properties9 common;
  int max_multi_request;
};

struct Properties12 {
  char* name;
  char* pci_path;
  std::uint64_t guid;
  int ptr_support;
  int reg_is_global;
  int force_flush;
  int speed;
  int port;
  float latency;
  int max_comms;
  int max_recvs;
  int device_type;
  int device_version;
  VirtualDevice<8> parts;
  std::size_t max_p2p_bytes;
  std::size_t max_coll_bytes;
  int max_multi_request;
  std::int16_t rail_id;
  std::int16_t plane_id;
};

struct CommConfig {
  int traffic_class;
};
struct NetAttributes;  // advice, of no use here

// What all versions have alike, in this order, after irecv.
using Flush = Result (*)(void* comm, int n, void** data, int* sizes, void** mhandles,
                         void** request);
using Test = Result (*)(void* request, int* done, int* sizes);
using Close = Result (*)(void* comm);
using GetDeviceMr = Result (*)(void* comm, void* mhandle, void** on_device);
using Consumed = Result (*)(void* comm, int n, void* request);

using Devices = Result (*)(int* count);
using Accept = Result (*)(void* listen_comm, void** recv_comm, DeviceHandle** device);
using RegMr = Result (*)(void* comm, void* data, std::size_t size, int type, void** mhandle);
using RegMrDmaBuf = Result (*)(void* comm, void* data, std::size_t size, int type,
                               std::uint64_t offset, int fd, void** mhandle);
using DeregMr = Result (*)(void* comm, void* mhandle);

// Without a context: before 11.
using Listen8 = Result (*)(int device, void* handle, void** listen_comm);
using Connect8 = Result (*)(int device, void* handle, void** send_comm, DeviceHandle** card);
using Irecv9 = Result (*)(void* comm, int n, void** data, std::size_t* sizes, int* tags,
                          void** mhandles, void** request);
using Isend9 = Result (*)(void* comm, void* data, std::size_t size, int tag, void* mhandle,
                          void** request);
using Irecv10 = Result (*)(void* comm, int n, void** data, std::size_t* sizes, int* tags,
                           void** mhandles, void** phandles, void** request);
using Isend10 = Result (*)(void* comm, void* data, std::size_t size, int tag, void* mhandle,
                           void* phandle, void** request);

struct Table8 {
  const char* name;
  Result (*init)(Logger logger);
  Devices devices;
  Result (*get_properties)(int device, Properties8* properties);
  Listen8 listen;
  Connect8 connect;
  Accept accept;
  RegMr reg_mr;
  RegMrDmaBuf reg_mr_dma_buf;
  DeregMr dereg_mr;
  Result (*isend)(void* comm, void* data, int size, int tag, void* mhandle, void** request);
  Result (*irecv)(void* comm, int n, void** data, int* sizes, int* tags, void** mhandles,
                  void** request);
  Flush iflush;
  Test test;
  Close close_send, close_recv, close_listen;
  GetDeviceMr get_device_mr;
  Consumed irecv_consumed;
};

struct Table9 {
  const char* name;
  Result (*init)(Logger logger);
  Devices devices;
  Result (*get_properties)(int device, Properties9* properties);
  Listen8 listen;
  Connect8 connect;
  Accept accept;
  RegMr reg_mr;
  RegMrDmaBuf reg_mr_dma_buf;
  DeregMr dereg_mr;
  Isend9 isend;
  Irecv9 irecv;
  Flush iflush;
  Test test;
  Close close_send, close_recv, close_listen;
  GetDeviceMr get_device_mr;
  Consumed irecv_consumed;
  Result (*make_virtual_device)(int* device, VirtualDevice<4>* parts);
};

struct Table10 {
  const char* name;
  Result (*init)(Logger logger, ProfilerCallback profiler);
  Devices devices;
  Result (*get_properties)(int device, Properties10* properties);
  Listen8 listen;
  Result (*connect)(int device, CommConfig* config, void* handle, void** send_comm,
                    DeviceHandle** card);
  Accept accept;
  RegMr reg_mr;
  RegMrDmaBuf reg_mr_dma_buf;
  DeregMr dereg_mr;
  Isend10 isend;
  Irecv10 irecv;
  Flush iflush;
  Test test;
  Close close_send, close_recv, close_listen;
  GetDeviceMr get_device_mr;
  Consumed irecv_consumed;
  Result (*make_virtual_device)(int* device, VirtualDevice<4>* parts);
};

// 11 and 12 differ in what they say of a device.
template <typename Properties, typename Virtual>
struct TableWithContext {
  const char* name;
  Result (*init)(void** context, std::uint64_t comm, CommConfig* config, Logger logger,
                 ProfilerCallback profiler);
  Devices devices;
  Result (*get_properties)(int device, Properties* properties);
  Result (*listen)(void* context, int device, void* handle, void** listen_comm);
  Result (*connect)(void* context, int device, void* handle, void** send_comm, DeviceHandle** card);
  Accept accept;
  RegMr reg_mr;
  RegMrDmaBuf reg_mr_dma_buf;
  DeregMr dereg_mr;
  Isend10 isend;
  Irecv10 irecv;
  Flush iflush;
  Test test;
  Close close_send, close_recv, close_listen;
  GetDeviceMr get_device_mr;
  Consumed irecv_consumed;
  Result (*make_virtual_device)(int* device, Virtual* parts);
  Result (*finalize)(void* context);
  Result (*set_net_attributes)(void* context, NetAttributes* attributes);
};
using Table11 = TableWithContext<Properties11, VirtualDevice<4>>;
using Table12 = TableWithContext<Properties12, VirtualDevice<8>>;

// Computed by hand from the documented order of fields: pointers and size_t are 8 bytes, int and
// float 4, int16_t 2, each at a multiple of its size.
constexpr std::size_t kWord = 8;
#define CWAI_AT(type, field, place) static_assert(offsetof(type, field) == (place))
CWAI_AT(Properties8, guid, 16);
CWAI_AT(Properties8, speed, 32);
CWAI_AT(Properties8, max_recvs, 48);
CWAI_AT(Properties8, device_version, 56);
static_assert(sizeof(Properties8) == 64);
CWAI_AT(Properties9, force_flush, 32);
CWAI_AT(Properties9, max_recvs, 52);
CWAI_AT(Properties9, device_version, 60);
CWAI_AT(Properties9, parts, 64);
CWAI_AT(Properties9, max_p2p_bytes, 88);
static_assert(sizeof(Properties9) == 104);
CWAI_AT(Properties11, max_multi_request, 104);
static_assert(sizeof(Properties11) == 112);
CWAI_AT(Properties12, parts, 64);
CWAI_AT(Properties12, max_p2p_bytes, 104);
CWAI_AT(Properties12, max_multi_request, 120);
CWAI_AT(Properties12, rail_id, 124);
CWAI_AT(Properties12, plane_id, 126);
static_assert(sizeof(Properties12) == 128);
static_assert(sizeof(VirtualDevice<4>) == 20 && sizeof(VirtualDevice<8>) == 36);
static_assert(sizeof(CommConfig) == 4);
CWAI_AT(Table8, isend, 10 * kWord);
CWAI_AT(Table8, test, 13 * kWord);
CWAI_AT(Table8, irecv_consumed, 18 * kWord);
static_assert(sizeof(Table8) == 19 * kWord);
CWAI_AT(Table9, irecv, 11 * kWord);
CWAI_AT(Table9, make_virtual_device, 19 * kWord);
static_assert(sizeof(Table9) == 20 * kWord);
CWAI_AT(Table10, connect, 5 * kWord);
static_assert(sizeof(Table10) == 20 * kWord);
CWAI_AT(Table11, close_listen, 16 * kWord);
CWAI_AT(Table11, finalize, 20 * kWord);
static_assert(sizeof(Table11) == 22 * kWord);
CWAI_AT(Table12, set_net_attributes, 21 * kWord);
static_assert(sizeof(Table12) == 22 * kWord);
#undef CWAI_AT

}  // namespace cwai::nccl_net

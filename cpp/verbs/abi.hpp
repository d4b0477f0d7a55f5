// The binary interface of libibverbs (version 1.1 and later), as far as we use it: layouts and
// numbers as /usr/include/infiniband/verbs.h of rdma-core has them. Declared here, so that the
// module builds where that header is not, and loads where the library is not;
// tests/cpp/test_verbs_abi.cpp holds each of them against the header where there is one.
#pragma once

#include <pthread.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace cwai::verbs {

// Handles that only the library looks into.
struct Device;
struct Pd;
struct CompChannel;
struct Srq;

struct alignas(8) Gid {
  std::array<std::uint8_t, 16> raw;
};

enum GidType : std::uint32_t { kGidIb, kGidRoceV1, kGidRoceV2 };

struct GidEntry {
  Gid gid;
  std::uint32_t gid_index;
  std::uint32_t port_num;
  std::uint32_t gid_type;
  std::uint32_t ndev_ifindex;
};

constexpr std::uint8_t kLinkInfiniband = 1;
constexpr std::uint8_t kLinkEthernet = 2;
constexpr int kPortDown = 1;
constexpr int kPortActive = 4;

struct PortAttr {
  int state;
  int max_mtu;
  int active_mtu;  ///< 1 to 5: 256 to 4096 bytes.
  int gid_tbl_len;
  std::uint32_t port_cap_flags;
  std::uint32_t max_msg_sz;
  std::uint32_t bad_pkey_cntr;
  std::uint32_t qkey_viol_cntr;
  std::uint16_t pkey_tbl_len;
  std::uint16_t lid;
  std::uint16_t sm_lid;
  std::uint8_t lmc;
  std::uint8_t max_vl_num;
  std::uint8_t sm_sl;
  std::uint8_t subnet_timeout;
  std::uint8_t init_type_reply;
  std::uint8_t active_width;
  std::uint8_t active_speed;
  std::uint8_t phys_state;
  std::uint8_t link_layer;
  std::uint8_t flags;
  std::uint16_t port_cap_flags2;
};

struct DeviceAttr {
  std::array<char, 64> fw_ver;
  std::uint64_t node_guid;
  std::uint64_t sys_image_guid;
  std::uint64_t max_mr_size;
  std::uint64_t page_size_cap;
  std::uint32_t vendor_id;
  std::uint32_t vendor_part_id;
  std::uint32_t hw_ver;
  int max_qp;
  int max_qp_wr;
  unsigned device_cap_flags;
  int max_sge;
  int max_sge_rd;
  int max_cq;
  int max_cqe;
  int max_mr;
  int max_pd;
  int max_qp_rd_atom;  ///< Reads of the other end that a queue pair answers at a time.
  int max_ee_rd_atom;
  int max_res_rd_atom;
  int max_qp_init_rd_atom;  ///< Reads of its own that it asks at a time.
  std::array<int, 16> after_reads;
  std::uint16_t max_pkeys;
  std::uint8_t local_ca_ack_delay;
  std::uint8_t phys_port_cnt;
};

enum WcStatus : int {
  kWcSuccess = 0,
  kWcLocalProtection = 4,
  kWcWrFlush = 5,
  kWcRemoteInvalidRequest = 9,
  kWcRemoteAccess = 10,
  kWcRetryExceeded = 12,
  kWcRnrRetryExceeded = 13,
};

enum WcOpcode : int {
  kWcSend = 0,
  kWcRdmaWrite = 1,
  kWcRdmaRead = 2,
  kWcRecv = 128,
  kWcRecvRdmaWithImm = 129,
};

enum EventType : int {
  kEventCqError = 0,
  kEventQpFatal = 1,
  kEventQpRequestError = 2,
  kEventQpAccessError = 3,
  kEventDeviceFatal = 8,
  kEventPortError = 10,
  kEventGidChange = 18,
};

struct Cq;
struct Qp;

struct AsyncEvent {
  union {
    Cq* cq;
    Qp* qp;
    int port;
  } element;
  int type;
};

struct Wc {
  std::uint64_t wr_id;
  int status;
  int opcode;
  std::uint32_t vendor_err;
  std::uint32_t byte_len;
  std::uint32_t imm_data;
  std::uint32_t qp_num;
  std::uint32_t src_qp;
  unsigned wc_flags;
  std::uint16_t pkey_index;
  std::uint16_t slid;
  std::uint8_t sl;
  std::uint8_t dlid_path_bits;
};

constexpr unsigned kAccessLocalWrite = 1U << 0;
constexpr unsigned kAccessRemoteWrite = 1U << 1;
constexpr unsigned kAccessRemoteRead = 1U << 2;
constexpr unsigned kAccessRelaxedOrdering = 1U << 20;

struct Mr {
  void* context;
  Pd* pd;
  void* addr;
  std::size_t length;
  std::uint32_t handle;
  std::uint32_t lkey;
  std::uint32_t rkey;
};

struct GlobalRoute {
  Gid dgid;
  std::uint32_t flow_label;
  std::uint8_t sgid_index;
  std::uint8_t hop_limit;
  std::uint8_t traffic_class;
};

struct AhAttr {
  GlobalRoute grh;
  std::uint16_t dlid;
  std::uint8_t sl;
  std::uint8_t src_path_bits;
  std::uint8_t static_rate;
  std::uint8_t is_global;
  std::uint8_t port_num;
};

constexpr int kQpTypeRc = 2;

struct QpCap {
  std::uint32_t max_send_wr;
  std::uint32_t max_recv_wr;
  std::uint32_t max_send_sge;
  std::uint32_t max_recv_sge;
  std::uint32_t max_inline_data;
};

struct QpInitAttr {
  void* qp_context;
  Cq* send_cq;
  Cq* recv_cq;
  Srq* srq;
  QpCap cap;
  int qp_type;
  int sq_sig_all;
};

enum QpState : int { kQpReset, kQpInit, kQpRtr, kQpRts, kQpSqd, kQpSqe, kQpErr };

enum QpMask : int {
  kQpState = 1 << 0,
  kQpAccessFlags = 1 << 3,
  kQpPkeyIndex = 1 << 4,
  kQpPort = 1 << 5,
  kQpAv = 1 << 7,
  kQpPathMtu = 1 << 8,
  kQpTimeout = 1 << 9,
  kQpRetryCnt = 1 << 10,
  kQpRnrRetry = 1 << 11,
  kQpRqPsn = 1 << 12,
  kQpMaxQpRdAtomic = 1 << 13,
  kQpMinRnrTimer = 1 << 15,
  kQpSqPsn = 1 << 16,
  kQpMaxDestRdAtomic = 1 << 17,
  kQpDestQpn = 1 << 20,
};

struct QpAttr {
  int qp_state;
  int cur_qp_state;
  int path_mtu;
  int path_mig_state;
  std::uint32_t qkey;
  std::uint32_t rq_psn;
  std::uint32_t sq_psn;
  std::uint32_t dest_qp_num;
  unsigned qp_access_flags;
  QpCap cap;
  AhAttr ah_attr;
  AhAttr alt_ah_attr;
  std::uint16_t pkey_index;
  std::uint16_t alt_pkey_index;
  std::uint8_t en_sqd_async_notify;
  std::uint8_t sq_draining;
  std::uint8_t max_rd_atomic;
  std::uint8_t max_dest_rd_atomic;
  std::uint8_t min_rnr_timer;
  std::uint8_t port_num;
  std::uint8_t timeout;
  std::uint8_t retry_cnt;
  std::uint8_t rnr_retry;
  std::uint8_t alt_port_num;
  std::uint8_t alt_timeout;
  std::uint32_t rate_limit;
};

struct Sge {
  std::uint64_t addr;
  std::uint32_t length;
  std::uint32_t lkey;
};

enum WrOpcode : int { kWrRdmaWrite, kWrRdmaWriteWithImm, kWrSend, kWrSendWithImm, kWrRdmaRead };

constexpr unsigned kSendSignaled = 1U << 1;
constexpr unsigned kSendInline = 1U << 3;

struct SendWr {
  std::uint64_t wr_id;
  SendWr* next;
  Sge* sg_list;
  int num_sge;
  int opcode;
  unsigned send_flags;
  std::uint32_t imm_data;
  struct {
    std::uint64_t remote_addr;
    std::uint32_t rkey;
  } rdma;
  std::array<std::byte, 72> rest;  ///< What other kinds of work requests put here.
};

struct RecvWr {
  std::uint64_t wr_id;
  RecvWr* next;
  Sge* sg_list;
  int num_sge;
};

// What verbs.h calls through these tables without a function of the library.
struct ContextOps {
  std::array<void*, 11> before_poll;
  int (*poll_cq)(Cq*, int, Wc*);
  int (*req_notify_cq)(Cq*, int);
  std::array<void*, 12> before_post;
  int (*post_send)(Qp*, SendWr*, SendWr**);
  int (*post_recv)(Qp*, RecvWr*, RecvWr**);
  std::array<void*, 5> after_post;
};

struct Context {
  Device* device;
  ContextOps ops;
  int cmd_fd;
  int async_fd;
  int num_comp_vectors;
  pthread_mutex_t mutex;
  void* abi_compat;  ///< All ones where a VerbsContext is around it.
};

// A queue pair that is made with the kinds of requests that are going to be built in it.
struct QpInitAttrEx {
  void* qp_context;
  Cq* send_cq;
  Cq* recv_cq;
  Srq* srq;
  QpCap cap;
  int qp_type;
  int sq_sig_all;
  std::uint32_t comp_mask;
  Pd* pd;
  void* xrcd;
  std::uint32_t create_flags;
  std::uint16_t max_tso_header;
  void* rwq_ind_tbl;
  std::array<std::uint64_t, 3> rx_hash_conf;
  std::uint32_t source_qpn;
  std::uint64_t send_ops_flags;
};

constexpr std::uint32_t kQpInitPd = 1U << 0;
constexpr std::uint32_t kQpInitSendOps = 1U << 6;

constexpr std::uint64_t kWithRdmaWrite = 1U << 0;
constexpr std::uint64_t kWithSend = 1U << 2;
constexpr std::uint64_t kWithRdmaRead = 1U << 4;

// The end of what a provider has around its Context. New fields come at the front: ``size`` counts
// all of it.
struct VerbsContext {
  Qp* (*create_qp_ex)(Context*, QpInitAttrEx*);
  std::array<void*, 5> after_create;
  std::size_t size;
  Context context;
};

struct Cq {
  Context* context;
  CompChannel* channel;
};

struct Qp {
  Context* context;
  void* qp_context;
  Pd* pd;
  Cq* send_cq;
  Cq* recv_cq;
  Srq* srq;
  std::uint32_t handle;
  std::uint32_t qp_num;
  int state;
  int qp_type;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  std::uint32_t events_completed;
};

// What ibv_wr_* of verbs.h call: requests are built in the queue pair itself, one after the other
// between wr_start and wr_complete. Each begins with its id and flags and the function of its kind.
struct QpEx {
  Qp base;
  std::uint64_t comp_mask;
  std::uint64_t wr_id;
  unsigned wr_flags;
  std::array<void*, 4> before_read;
  void (*wr_rdma_read)(QpEx*, std::uint32_t rkey, std::uint64_t remote_addr);
  void (*wr_rdma_write)(QpEx*, std::uint32_t rkey, std::uint64_t remote_addr);
  void* wr_rdma_write_imm;
  void (*wr_send)(QpEx*);
  std::array<void*, 5> after_send;
  void (*wr_set_inline_data)(QpEx*, void*, std::size_t);
  void* wr_set_inline_data_list;
  void (*wr_set_sge)(QpEx*, std::uint32_t lkey, std::uint64_t addr, std::uint32_t length);
  void* wr_set_sge_list;
  void (*wr_start)(QpEx*);
  int (*wr_complete)(QpEx*);
};

}  // namespace cwai::verbs

// Our declarations of libibverbs' binary interface against its own header. It asserts while it is
// compiled; where the header is not here there is nothing to hold them against.
#include <infiniband/verbs.h>

#include <cstddef>

#include "runner.hpp"
#include "verbs/abi.hpp"

namespace ours = cwai::verbs;

#define SAME_SIZE(mine, theirs) \
  static_assert(sizeof(ours::mine) == sizeof(theirs) && alignof(ours::mine) == alignof(theirs))
#define SAME_PLACE(mine, field, theirs, theirs_field)                            \
  static_assert(offsetof(ours::mine, field) == offsetof(theirs, theirs_field) && \
                sizeof(ours::mine::field) == sizeof(theirs::theirs_field))
#define SAME(mine, theirs, field) SAME_PLACE(mine, field, theirs, field)

SAME_SIZE(Gid, ibv_gid);
SAME_SIZE(GidEntry, ibv_gid_entry);
SAME(GidEntry, ibv_gid_entry, gid_type);
SAME_SIZE(PortAttr, ibv_port_attr);
SAME(PortAttr, ibv_port_attr, lid);
SAME(PortAttr, ibv_port_attr, link_layer);
SAME_SIZE(DeviceAttr, ibv_device_attr);
SAME(DeviceAttr, ibv_device_attr, max_qp_wr);
SAME(DeviceAttr, ibv_device_attr, max_cqe);
SAME(DeviceAttr, ibv_device_attr, max_qp_rd_atom);
SAME(DeviceAttr, ibv_device_attr, max_qp_init_rd_atom);
SAME(DeviceAttr, ibv_device_attr, phys_port_cnt);
SAME_SIZE(Wc, ibv_wc);
SAME(Wc, ibv_wc, byte_len);
SAME(Wc, ibv_wc, qp_num);
SAME(Wc, ibv_wc, dlid_path_bits);
SAME_SIZE(AsyncEvent, ibv_async_event);
SAME_PLACE(AsyncEvent, type, ibv_async_event, event_type);
SAME_SIZE(Mr, ibv_mr);
SAME(Mr, ibv_mr, lkey);
SAME(Mr, ibv_mr, rkey);
SAME_SIZE(GlobalRoute, ibv_global_route);
SAME(GlobalRoute, ibv_global_route, traffic_class);
SAME_SIZE(AhAttr, ibv_ah_attr);
SAME(AhAttr, ibv_ah_attr, port_num);
SAME_SIZE(QpCap, ibv_qp_cap);
SAME_SIZE(QpInitAttr, ibv_qp_init_attr);
SAME(QpInitAttr, ibv_qp_init_attr, cap);
SAME(QpInitAttr, ibv_qp_init_attr, sq_sig_all);
SAME_SIZE(QpAttr, ibv_qp_attr);
SAME(QpAttr, ibv_qp_attr, ah_attr);
SAME(QpAttr, ibv_qp_attr, timeout);
SAME(QpAttr, ibv_qp_attr, rate_limit);
SAME_SIZE(Sge, ibv_sge);
SAME_SIZE(SendWr, ibv_send_wr);
SAME(SendWr, ibv_send_wr, send_flags);
SAME_PLACE(SendWr, rdma.remote_addr, ibv_send_wr, wr.rdma.remote_addr);
SAME_PLACE(SendWr, rdma.rkey, ibv_send_wr, wr.rdma.rkey);
SAME_SIZE(RecvWr, ibv_recv_wr);
SAME_SIZE(ContextOps, ibv_context_ops);
SAME(ContextOps, ibv_context_ops, poll_cq);
SAME(ContextOps, ibv_context_ops, req_notify_cq);
SAME(ContextOps, ibv_context_ops, post_send);
SAME(ContextOps, ibv_context_ops, post_recv);
SAME(Context, ibv_context, ops);
SAME(Context, ibv_context, async_fd);
SAME(Context, ibv_context, abi_compat);
SAME_SIZE(Context, ibv_context);
SAME_SIZE(QpInitAttrEx, ibv_qp_init_attr_ex);
SAME(QpInitAttrEx, ibv_qp_init_attr_ex, cap);
SAME(QpInitAttrEx, ibv_qp_init_attr_ex, comp_mask);
SAME(QpInitAttrEx, ibv_qp_init_attr_ex, pd);  // NOLINT(bugprone-sizeof-expression): of pointers
SAME(QpInitAttrEx, ibv_qp_init_attr_ex, send_ops_flags);
SAME(Qp, ibv_qp, qp_num);
SAME_SIZE(Qp, ibv_qp);
SAME(QpEx, ibv_qp_ex, wr_id);
SAME(QpEx, ibv_qp_ex, wr_flags);
SAME(QpEx, ibv_qp_ex, wr_rdma_read);
SAME(QpEx, ibv_qp_ex, wr_rdma_write);
SAME(QpEx, ibv_qp_ex, wr_send);
SAME(QpEx, ibv_qp_ex, wr_set_inline_data);
SAME(QpEx, ibv_qp_ex, wr_set_sge);
SAME(QpEx, ibv_qp_ex, wr_start);
SAME(QpEx, ibv_qp_ex, wr_complete);
static_assert(offsetof(ours::Cq, channel) == offsetof(ibv_cq, channel));
// Ours is the end of theirs.
static_assert(sizeof(ours::VerbsContext) ==
              sizeof(verbs_context) - offsetof(verbs_context, create_qp_ex));
static_assert(offsetof(ours::VerbsContext, size) ==
              offsetof(verbs_context, sz) - offsetof(verbs_context, create_qp_ex));
static_assert(offsetof(ours::VerbsContext, context) ==
              offsetof(verbs_context, context) - offsetof(verbs_context, create_qp_ex));

#define SAME_NUMBER(mine, theirs) \
  static_assert(static_cast<long>(ours::mine) == static_cast<long>(theirs))

SAME_NUMBER(kGidRoceV1, IBV_GID_TYPE_ROCE_V1);
SAME_NUMBER(kGidRoceV2, IBV_GID_TYPE_ROCE_V2);
SAME_NUMBER(kLinkInfiniband, IBV_LINK_LAYER_INFINIBAND);
SAME_NUMBER(kLinkEthernet, IBV_LINK_LAYER_ETHERNET);
SAME_NUMBER(kPortDown, IBV_PORT_DOWN);
SAME_NUMBER(kPortActive, IBV_PORT_ACTIVE);
SAME_NUMBER(kWcLocalProtection, IBV_WC_LOC_PROT_ERR);
SAME_NUMBER(kWcWrFlush, IBV_WC_WR_FLUSH_ERR);
SAME_NUMBER(kWcRemoteInvalidRequest, IBV_WC_REM_INV_REQ_ERR);
SAME_NUMBER(kWcRemoteAccess, IBV_WC_REM_ACCESS_ERR);
SAME_NUMBER(kWcRetryExceeded, IBV_WC_RETRY_EXC_ERR);
SAME_NUMBER(kWcRnrRetryExceeded, IBV_WC_RNR_RETRY_EXC_ERR);
SAME_NUMBER(kWcRdmaRead, IBV_WC_RDMA_READ);
SAME_NUMBER(kWcRecv, IBV_WC_RECV);
SAME_NUMBER(kWcRecvRdmaWithImm, IBV_WC_RECV_RDMA_WITH_IMM);
SAME_NUMBER(kEventCqError, IBV_EVENT_CQ_ERR);
SAME_NUMBER(kEventQpFatal, IBV_EVENT_QP_FATAL);
SAME_NUMBER(kEventQpRequestError, IBV_EVENT_QP_REQ_ERR);
SAME_NUMBER(kEventQpAccessError, IBV_EVENT_QP_ACCESS_ERR);
SAME_NUMBER(kEventDeviceFatal, IBV_EVENT_DEVICE_FATAL);
SAME_NUMBER(kEventPortError, IBV_EVENT_PORT_ERR);
SAME_NUMBER(kEventGidChange, IBV_EVENT_GID_CHANGE);
SAME_NUMBER(kAccessRemoteRead, IBV_ACCESS_REMOTE_READ);
SAME_NUMBER(kAccessRelaxedOrdering, IBV_ACCESS_RELAXED_ORDERING);
SAME_NUMBER(kQpTypeRc, IBV_QPT_RC);
SAME_NUMBER(kQpRts, IBV_QPS_RTS);
SAME_NUMBER(kQpErr, IBV_QPS_ERR);
SAME_NUMBER(kQpDestQpn, IBV_QP_DEST_QPN);
SAME_NUMBER(kQpSqPsn, IBV_QP_SQ_PSN);
SAME_NUMBER(kQpMaxDestRdAtomic, IBV_QP_MAX_DEST_RD_ATOMIC);
SAME_NUMBER(kQpMinRnrTimer, IBV_QP_MIN_RNR_TIMER);
SAME_NUMBER(kQpAv, IBV_QP_AV);
SAME_NUMBER(kWrRdmaWriteWithImm, IBV_WR_RDMA_WRITE_WITH_IMM);
SAME_NUMBER(kWrRdmaWrite, IBV_WR_RDMA_WRITE);
SAME_NUMBER(kWrSend, IBV_WR_SEND);
SAME_NUMBER(kWrRdmaRead, IBV_WR_RDMA_READ);
SAME_NUMBER(kQpInitPd, IBV_QP_INIT_ATTR_PD);
SAME_NUMBER(kQpInitSendOps, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS);
SAME_NUMBER(kWithRdmaWrite, IBV_QP_EX_WITH_RDMA_WRITE);
SAME_NUMBER(kWithSend, IBV_QP_EX_WITH_SEND);
SAME_NUMBER(kWithRdmaRead, IBV_QP_EX_WITH_RDMA_READ);
SAME_NUMBER(kSendSignaled, IBV_SEND_SIGNALED);
SAME_NUMBER(kSendInline, IBV_SEND_INLINE);

TEST(the_binary_interface_of_libibverbs_is_as_declared) {}

// Our declarations of NCCL's net plugin tables against the headers of its example plugin. It
// asserts while it is compiled; where they are not here there are the sizes and offsets of
// net_abi.hpp.
#include <nccl/net.h>

#include <cstddef>

#include "nccl_plugin/net_abi.hpp"
#include "runner.hpp"

namespace ours = cwai::nccl_net;

#define SAME_SIZE(mine, theirs) static_assert(sizeof(ours::mine) == sizeof(theirs))
#define SAME_PLACE(mine, field, theirs, their_field) \
  static_assert(offsetof(ours::mine, field) == offsetof(theirs, their_field))
#define SAME_NUMBER(mine, theirs) \
  static_assert(static_cast<long>(mine) == static_cast<long>(theirs))

SAME_SIZE(Table8, ncclNet_v8_t);
SAME_SIZE(Table9, ncclNet_v9_t);
SAME_SIZE(Table10, ncclNet_v10_t);
SAME_SIZE(Table11, ncclNet_v11_t);
SAME_SIZE(Table12, ncclNet_v12_t);
SAME_SIZE(Properties8, ncclNetProperties_v8_t);
SAME_SIZE(Properties9, ncclNetProperties_v9_t);
SAME_SIZE(Properties10, ncclNetProperties_v10_t);
SAME_SIZE(Properties11, ncclNetProperties_v11_t);
SAME_SIZE(Properties12, ncclNetProperties_v12_t);
SAME_SIZE(CommConfig, ncclNetCommConfig_v12_t);

#define SAME_TABLE(version)                                                          \
  SAME_PLACE(Table##version, init, ncclNet_v##version##_t, init);                    \
  SAME_PLACE(Table##version, get_properties, ncclNet_v##version##_t, getProperties); \
  SAME_PLACE(Table##version, connect, ncclNet_v##version##_t, connect);              \
  SAME_PLACE(Table##version, accept, ncclNet_v##version##_t, accept);                \
  SAME_PLACE(Table##version, reg_mr_dma_buf, ncclNet_v##version##_t, regMrDmaBuf);   \
  SAME_PLACE(Table##version, isend, ncclNet_v##version##_t, isend);                  \
  SAME_PLACE(Table##version, irecv, ncclNet_v##version##_t, irecv);                  \
  SAME_PLACE(Table##version, iflush, ncclNet_v##version##_t, iflush);                \
  SAME_PLACE(Table##version, test, ncclNet_v##version##_t, test);                    \
  SAME_PLACE(Table##version, close_listen, ncclNet_v##version##_t, closeListen);     \
  SAME_PLACE(Table##version, irecv_consumed, ncclNet_v##version##_t, irecvConsumed)
SAME_TABLE(8);
SAME_TABLE(9);
SAME_TABLE(10);
SAME_TABLE(11);
SAME_TABLE(12);
SAME_PLACE(Table9, make_virtual_device, ncclNet_v9_t, makeVDevice);
SAME_PLACE(Table11, finalize, ncclNet_v11_t, finalize);
SAME_PLACE(Table12, set_net_attributes, ncclNet_v12_t, setNetAttr);

#define SAME_PROPERTIES(version)                                                          \
  SAME_PLACE(Properties##version, guid, ncclNetProperties_v##version##_t, guid);          \
  SAME_PLACE(Properties##version, speed, ncclNetProperties_v##version##_t, speed);        \
  SAME_PLACE(Properties##version, max_recvs, ncclNetProperties_v##version##_t, maxRecvs); \
  SAME_PLACE(Properties##version, device_version, ncclNetProperties_v##version##_t,       \
             netDeviceVersion)
SAME_PROPERTIES(8);
SAME_PROPERTIES(9);
SAME_PROPERTIES(12);
SAME_PLACE(Properties9, max_p2p_bytes, ncclNetProperties_v9_t, maxP2pBytes);
SAME_PLACE(Properties11, max_multi_request, ncclNetProperties_v11_t, maxMultiRequestSize);
SAME_PLACE(Properties12, parts, ncclNetProperties_v12_t, vProps);
SAME_PLACE(Properties12, max_multi_request, ncclNetProperties_v12_t, maxMultiRequestSize);
SAME_PLACE(Properties12, rail_id, ncclNetProperties_v12_t, railId);
SAME_PLACE(Properties12, plane_id, ncclNetProperties_v12_t, planeId);

SAME_NUMBER(ours::kSuccess, ncclSuccess);
SAME_NUMBER(ours::kSystemError, ncclSystemError);
SAME_NUMBER(ours::kInternalError, ncclInternalError);
SAME_NUMBER(ours::kInvalidUsage, ncclInvalidUsage);
SAME_NUMBER(ours::kRemoteError, ncclRemoteError);
SAME_NUMBER(ours::kLogWarn, NCCL_LOG_WARN);
SAME_NUMBER(ours::kLogInfo, NCCL_LOG_INFO);
SAME_NUMBER(ours::kLogInit, NCCL_INIT);
SAME_NUMBER(ours::kLogNet, NCCL_NET);
SAME_NUMBER(ours::kPtrHost, NCCL_PTR_HOST);
SAME_NUMBER(ours::kDeviceHost, NCCL_NET_DEVICE_HOST);
SAME_NUMBER(ours::kNoDeviceVersion, NCCL_NET_DEVICE_INVALID_VERSION);
SAME_NUMBER(ours::kHandleBytes, NCCL_NET_HANDLE_MAXSIZE);
SAME_NUMBER(ours::kRequests, NCCL_NET_MAX_REQUESTS);
SAME_NUMBER(ours::kMostBytes, NCCL_MAX_NET_SIZE_BYTES);
SAME_NUMBER(ours::kNoId, NCCL_NET_ID_UNDEF);

TEST(the_tables_of_net_plugins_are_as_declared) {}

// Our declarations of NCCL's binary interface against its own header. It asserts while it is
// compiled; where the header is not here there is nothing to hold them against.
#include <nccl.h>

#include <cstddef>

#include "collective/nccl_abi.hpp"
#include "runner.hpp"

namespace ours = cwai::nccl;
using cwai::Element;
using cwai::Reduction;

#define SAME_NUMBER(mine, theirs) \
  static_assert(static_cast<long>(mine) == static_cast<long>(theirs))
#define SAME_TYPE(element, theirs) \
  SAME_NUMBER(ours::kTypes[static_cast<std::size_t>(Element::element)], theirs)
#define SAME_OP(reduction, theirs) \
  SAME_NUMBER(ours::kOps[static_cast<std::size_t>(Reduction::reduction)], theirs)
#define SAME_PLACE(field, theirs)                                                  \
  static_assert(offsetof(ours::Config, field) == offsetof(ncclConfig_t, theirs) && \
                sizeof(ours::Config::field) == sizeof(ncclConfig_t::theirs))

static_assert(sizeof(ours::UniqueId) == sizeof(ncclUniqueId));
SAME_NUMBER(ours::kSuccess, ncclSuccess);
SAME_NUMBER(ours::kInProgress, ncclInProgress);
SAME_NUMBER(ours::kHostImmediate, ncclScalarHostImmediate);
SAME_NUMBER(ours::kUndefined, NCCL_CONFIG_UNDEF_INT);
SAME_TYPE(kInt8, ncclInt8);
SAME_TYPE(kUint8, ncclUint8);
SAME_TYPE(kInt32, ncclInt32);
SAME_TYPE(kUint32, ncclUint32);
SAME_TYPE(kInt64, ncclInt64);
SAME_TYPE(kUint64, ncclUint64);
SAME_TYPE(kFloat16, ncclFloat16);
SAME_TYPE(kBfloat16, ncclBfloat16);
SAME_TYPE(kFloat32, ncclFloat32);
SAME_TYPE(kFloat64, ncclFloat64);
SAME_OP(kSum, ncclSum);
SAME_OP(kProd, ncclProd);
SAME_OP(kMax, ncclMax);
SAME_OP(kMin, ncclMin);
SAME_OP(kAvg, ncclAvg);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 24, 0)
SAME_TYPE(kFloat8E4M3, ncclFloat8e4m3);
SAME_TYPE(kFloat8E5M2, ncclFloat8e5m2);
#endif
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
SAME_PLACE(traffic_class, trafficClass);
SAME_PLACE(comm_name, commName);
SAME_PLACE(collnet_enable, collnetEnable);
#endif

TEST(the_binary_interface_of_nccl_is_as_declared) {}

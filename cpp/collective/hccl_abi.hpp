// HCCL's binary interface, as hccl.h, hccl_comm.h and hccl_types.h of CANN 8 and 9 have it
// (hicann/hccl, include; hicann/hcomm, include/hccl). tests/cpp/test_hccl.cpp holds the numbers
// against the stand-in, which has them from the manual.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "collective/backend.hpp"

namespace cwai::hccl {

struct RootInfo {
  std::array<char, 4108> bytes;  // HCCL_ROOT_INFO_BYTES
};

constexpr int kSuccess = 0;  // HcclResult

// HcclDataType by Element; 13 is no type.
constexpr std::array<int, kElements> kTypes = {0, 7, 1, 8, 2, 9, 5, 6, 3, 11, 4, 10, 15, 16};

// HcclReduceOp by Reduction: sum, prod, max, min. It has no average and no factor.
constexpr int kOps = 4;

struct SendReceive {  // HcclSendRecvItem
  int type;           // 0: sent, 1: received
  std::byte* buffer;
  std::uint64_t count;
  int element;
  std::uint32_t peer;
};

}  // namespace cwai::hccl

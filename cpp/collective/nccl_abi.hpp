// NCCL's binary interface, as nccl.h of 2.4 to 2.32 has it; tests/cpp/test_nccl_abi.cpp holds it
// against that header where it is found.
#pragma once

#include <array>
#include <cstddef>
#include <limits>

#include "collective/backend.hpp"

namespace cwai::nccl {

struct UniqueId {
  std::array<char, 128> bytes;
};

constexpr int kSuccess = 0, kInProgress = 7;                 // ncclResult_t
constexpr int kHostImmediate = 1;                            // ncclScalarHostImmediate
constexpr int kUndefined = std::numeric_limits<int>::min();  // NCCL_CONFIG_UNDEF_INT

// The first part of ncclConfig_t. The library copies as much as ``size`` says and takes what
// ``version`` did not have yet for not given (parseCommConfig in src/init.cc).
struct Config {
  std::size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;  // NCCL_API_MAGIC
  unsigned version = 22700;
  // Not blocking would mean a thread for each operation (ncclGroupEndInternal in src/group.cc),
  // whose start would be in every time that is measured.
  int blocking = 1;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
  int traffic_class = kUndefined;
  const char* comm_name = nullptr;
  int collnet_enable = kUndefined;
};

// ncclDataType_t by Element; -1 for what NCCL has not.
constexpr std::array<int, kElements> kTypes = {0, 1, -1, -1, 2, 3, 4, 5, 6, 9, 7, 8, 10, 11};

// ncclRedOp_t by Reduction, but for premulsum, which the library numbers.
constexpr std::array<int, kReductions - 1> kOps = {0, 1, 2, 3, 4};

}  // namespace cwai::nccl

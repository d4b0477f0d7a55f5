// The RDMA devices of this node, as the library of verbs and the kernel tell of them.
#pragma once

#include <string>
#include <vector>

#include "nccl_plugin/rails.hpp"

namespace cwai::nccl_net {

struct NicsHere {
  std::vector<NicPort> ports;         ///< Those that are up.
  std::vector<std::string> left_out;  ///< Others, each with the reason.
};

/// ``gid_index`` as in verbs::PathSpec. Throws Error(kLibrary) when there is no libibverbs.
NicsHere nics_here(int gid_index);

}  // namespace cwai::nccl_net

// NCCL, and every library that keeps its binary interface (CTCCL, VCCL, RCCL's kin), opened at run
// time; GPUs through libcuda alone (device/cuda.hpp).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/backend.hpp"
#include "collective/meeting.hpp"
#include "support/stop.hpp"

namespace cwai {

struct NcclSpec {
  std::string library;      ///< A path, or empty for libnccl.so.2 as the loader finds it.
  std::vector<int> cards;   ///< Ordinals of the GPUs of this process: a member each, in this order.
  int collnet = -1;         ///< SHARP: 1 on, 0 off, -1 as the library has it. Needs NCCL 2.27.
  bool registered = false;  ///< Buffers are made known to the library beforehand. Needs NCCL 2.19.
};

/// Members of the group are the cards of process 0, then those of process 1, and so on. Collective:
/// all processes come here, and where one fails all throw.
///
/// Throws Error: kLibrary, kDevice; kInvalid without a card; kUnsupported for what the library is
/// too old for; kMixed with the two versions where not all processes have the same; kCollective
/// with what the library says; kStopped, kDeadline. In the last two a thread may be left waiting in
/// the library, which cannot be stopped while it starts: the process should end soon.
///
/// Its post() returns when the work is queued, but for the first time that the members speak to one
/// another in a new way: then NCCL may wait in it for the others.
std::unique_ptr<CollectiveBackend> nccl_backend(Meeting& meeting, const NcclSpec& spec,
                                                const Watch& watch);

}  // namespace cwai

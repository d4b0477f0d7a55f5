// HCCL, the collectives of Ascend NPUs: libhccl and libascendcl of the CANN toolkit, opened at run
// time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/backend.hpp"
#include "collective/meeting.hpp"
#include "support/stop.hpp"

namespace cwai {

struct HcclSpec {
  /// A path; or empty for libhccl.so as the loader, or else ASCEND_HOME_PATH, has it.
  std::string library;
  std::vector<int> cards;  ///< Ordinals of the NPUs of this process: a member each, in this order.
};

/// The path of the libhccl that this process would use; it is loaded. Throws Error(kLibrary).
std::string hccl_path(const std::string& library);

/// Members of the group are the cards of process 0, then those of process 1, and so on. Collective:
/// all processes come here, and where one fails all throw.
///
/// Throws Error: kLibrary, kDevice; kInvalid without a card; kCollective with what the library
/// says; kStopped, kDeadline. In the last two a thread may be left waiting in the library, which
/// cannot be stopped while it starts: the process should end soon.
///
/// Its post() returns when the work is queued, but for the first operation of a kind: then HCCL
/// makes the connections that it needs, and waits in it for the others, at most
/// HCCL_CONNECT_TIMEOUT (120 s where that is not set). So each card of a process has a thread of
/// its own. HCCL cannot abort a communicator: what hangs is ended in its stream where the runtime
/// has a call for that, and else left as it is.
std::unique_ptr<CollectiveBackend> hccl_backend(Meeting& meeting, const HcclSpec& spec,
                                                const Watch& watch);

}  // namespace cwai

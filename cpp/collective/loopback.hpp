// A group within this process: every operation done by the CPU on the members' buffers. It is in
// every build and needs no MPI and no card.
#pragma once

#include <memory>

#include "collective/backend.hpp"

namespace cwai {

/// Throws Error(kInvalid) for fewer than one member.
std::unique_ptr<CollectiveBackend> loopback_group(int members);

}  // namespace cwai

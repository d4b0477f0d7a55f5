// MPI without an mpi.h: the library that mpi4py has loaded into this process, called through its
// binary interface.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "collective/host.hpp"
#include "collective/meeting.hpp"

namespace cwai {

/// Handles as mpi4py's ``MPI._handleof`` gives them: pointers in Open MPI, ints in MPICH and its
/// kin.
struct MpiHandles {
  std::uint64_t comm;
  std::array<std::uint64_t, kElements> elements;      ///< 0 for a type that MPI has not.
  std::array<std::uint64_t, kReductions> reductions;  ///< Likewise.
  std::uint64_t byte, min, max;
  std::uint64_t errors_return;
};

/// The ranks of a communicator: they meet over it, and can be measured.
class MpiRanks : public Meeting, public HostBackend {
 public:
  int rank() const noexcept override = 0;
  int size() const noexcept override = 0;
};

/// Works on a duplicate of ``comm``, so that our messages and the caller's never meet. Collective
/// over ``comm``. Throws Error: kNoMpi, kUnknownMpi for a binary interface that is not known here,
/// kMpi for what the library refuses.
std::unique_ptr<MpiRanks> mpi_ranks(const MpiHandles& handles);

}  // namespace cwai

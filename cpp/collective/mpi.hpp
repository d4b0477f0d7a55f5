// MPI without an mpi.h: the library that mpi4py has loaded into this process, called through its
// binary interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "collective/backend.hpp"

namespace cwai {

/// Handles as mpi4py's ``MPI._handleof`` gives them: pointers in Open MPI, ints in MPICH and its
/// kin.
struct MpiHandles {
  std::uint64_t comm;
  std::uint64_t float32, float64, int32;
  std::uint64_t sum, max;
  std::uint64_t errors_return;
};

/// Works on a duplicate of ``comm``, so that our messages and the caller's never meet. Collective
/// over ``comm``. Throws Error: kNoMpi, kUnknownMpi for a binary interface that is not known here,
/// kMpi for what the library refuses.
std::unique_ptr<CollectiveBackend> mpi_backend(const MpiHandles& handles);

}  // namespace cwai

// What could carry bytes or run a collective here. For each back end: built into this module? can
// its library be loaded? is there a device?
#pragma once

#include <string>
#include <vector>

namespace cwai {

struct Backend {
  std::string name;
  bool built;
  bool loadable;
  bool present;
  std::string library;  ///< The soname that was asked for; empty when it needs none.
  std::string loader;   ///< The loader's own words when the library could not be loaded.
  std::vector<std::string> devices;
};

/// Loads libraries to see whether they load, and lets them go; starts none of them.
/// ``mpi_directories`` are looked into for an MPI library before the system's own paths.
std::vector<Backend> backends(const std::vector<std::string>& mpi_directories);

}  // namespace cwai

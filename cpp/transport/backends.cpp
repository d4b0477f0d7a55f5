#include "transport/backends.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

// Entries of ``directory`` named ``prefix`` followed by digits alone (nvidia0, not nvidiactl); with
// an empty prefix all of them. A directory that is not there has none.
std::vector<std::string> devices(const std::string& directory, std::string_view prefix) {
  std::vector<std::string> found;
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator(directory, absent)) {
    const std::string name = entry.path().filename();
    if (name.rfind(prefix, 0) != 0) continue;
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    if (prefix.empty() || (!rest.empty() && std::all_of(rest.begin(), rest.end(), digit)))
      found.push_back(name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Tries the names in turn; what the loader said of the first is kept when none loads.
void load(Backend& backend, const std::vector<std::string>& names) {
  backend.library = names.front();
  for (const std::string& name : names) {
    try {
      DynamicLibrary::open(name);
      backend.library = name;
      backend.loadable = true;
      backend.loader.clear();
      return;
    } catch (const Error& error) {
      if (backend.loader.empty()) backend.loader = error.vendor_code();
    }
  }
}

Backend optional_backend(std::string name, const std::vector<std::string>& libraries,
                         std::vector<std::string> devices) {
  Backend backend{.name = std::move(name),
                  .built = true,
                  .loadable = false,
                  .present = !devices.empty(),
                  .library = {},
                  .loader = {},
                  .devices = std::move(devices)};
  load(backend, libraries);
  return backend;
}

Backend own_backend(std::string name, std::vector<std::string> devices) {
  return {.name = std::move(name),
          .built = true,
          .loadable = true,
          .present = true,
          .library = {},
          .loader = {},
          .devices = std::move(devices)};
}

}  // namespace

std::vector<Backend> backends(const std::vector<std::string>& mpi_directories) {
  // Open MPI; MPICH and those with its ABI; MPICH as Debian names it.
  const std::vector<std::string> sonames = {"libmpi.so.40", "libmpi.so.12", "libmpich.so.12"};
  std::vector<std::string> mpi_names;
  for (const std::string& directory : mpi_directories)
    for (const std::string& soname : sonames)
      mpi_names.push_back(std::filesystem::path(directory) / soname);
  mpi_names.insert(mpi_names.end(), sonames.begin(), sonames.end());

  Backend mpi = optional_backend("mpi", mpi_names, {});
  mpi.present = mpi.loadable;  // it needs no device of its own

  std::vector<std::string> hccl_names = {"libhccl.so"};
  if (const char* home = std::getenv("ASCEND_HOME_PATH"))
    hccl_names.push_back(std::filesystem::path(home) / "lib64" / "libhccl.so");

  return {own_backend("tcp", devices("/sys/class/net", "")),
          own_backend("loopback", {}),
          mpi,
          optional_backend("verbs", {"libibverbs.so.1"}, devices("/sys/class/infiniband", "")),
          optional_backend("cuda", {"libcuda.so.1"}, devices("/dev", "nvidia")),
          optional_backend("nccl", {"libnccl.so.2"}, devices("/dev", "nvidia")),
          optional_backend("hccl", hccl_names, devices("/dev", "davinci"))};
}

}  // namespace cwai

#include "support/dynamic_library.hpp"

#include <dlfcn.h>
#include <link.h>

#include <utility>

#include "support/error.hpp"

namespace cwai {

DynamicLibrary::DynamicLibrary(std::string name, int flags)
    : name_(std::move(name)), handle_(dlopen(name_.c_str(), flags)) {
  if (handle_ != nullptr) return;
  // With RTLD_NOLOAD a library that is not there is no error to the loader, and it has no words for
  // it.
  const char* said = dlerror();
  throw Error(Fault::kLibrary, name_, 0, said != nullptr ? said : "not loaded");
}

DynamicLibrary DynamicLibrary::open(const std::string& name) {
  // What drivers and their libraries start in the background may outlive all that we made of them,
  // so their code must stay.
  return {name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE};
}

DynamicLibrary DynamicLibrary::already_loaded(const std::string& name) {
  return {name, RTLD_NOW | RTLD_NOLOAD};
}

DynamicLibrary::DynamicLibrary(DynamicLibrary&& other) noexcept
    : name_(std::move(other.name_)), handle_(std::exchange(other.handle_, nullptr)) {}

DynamicLibrary::~DynamicLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

bool DynamicLibrary::has(const char* symbol) const noexcept {
  return dlsym(handle_, symbol) != nullptr;
}

void* DynamicLibrary::address(const char* symbol) const {
  void* found = dlsym(handle_, symbol);
  if (found == nullptr) throw Error(Fault::kLibrary, name_, 0, std::string("no symbol ") + symbol);
  return found;
}

std::vector<std::string> loaded_libraries() {
  std::vector<std::string> paths;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        if (info->dlpi_name != nullptr && info->dlpi_name[0] != '\0')
          static_cast<std::vector<std::string>*>(out)->emplace_back(info->dlpi_name);
        return 0;
      },
      &paths);
  return paths;
}

}  // namespace cwai

// The only place that opens shared libraries. What is optional is never linked.
#pragma once

#include <string>
#include <vector>

namespace cwai {

class DynamicLibrary {
 public:
  /// Loads ``name`` (a soname or a path). Throws Error(kLibrary) with the loader's own words.
  static DynamicLibrary open(const std::string& name);

  /// A library that this process has loaded already; never loads one. Throws as open() does.
  static DynamicLibrary already_loaded(const std::string& name);

  DynamicLibrary(DynamicLibrary&& other) noexcept;
  DynamicLibrary& operator=(DynamicLibrary&&) = delete;
  DynamicLibrary(const DynamicLibrary&) = delete;
  DynamicLibrary& operator=(const DynamicLibrary&) = delete;
  ~DynamicLibrary();

  /// The function ``symbol``. Throws Error(kLibrary) when the library has none.
  template <typename Function>
  Function* function(const char* symbol) const {
    return reinterpret_cast<Function*>(address(symbol));
  }
  bool has(const char* symbol) const noexcept;
  /// The function ``symbol``, or null where the library is too old to have it.
  template <typename Function>
  Function* find(const char* symbol) const {
    return has(symbol) ? function<Function>(symbol) : nullptr;
  }

  const std::string& name() const noexcept { return name_; }

 private:
  DynamicLibrary(std::string name, int flags);
  void* address(const char* symbol) const;

  std::string name_;
  void* handle_;
};

/// Paths of all shared libraries in this process, in the order of loading.
std::vector<std::string> loaded_libraries();

}  // namespace cwai

#include "device/cublaslt.hpp"

#include <map>
#include <mutex>
#include <type_traits>

#include "support/error.hpp"

namespace cwai::cublaslt {
namespace {

DynamicLibrary first_of(const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    try {
      return DynamicLibrary::open(names[i]);
    } catch (const Error&) {
      if (i + 1 == names.size()) throw;
    }
  }
  throw Error(Fault::kInvalid, "libraries=");
}

}  // namespace

Library::Library(const std::vector<std::string>& names) : library(first_of(names)) {
  const auto take = [this](auto*& function, const char* symbol) {
    function = library.function<std::remove_pointer_t<std::decay_t<decltype(function)>>>(symbol);
  };
  take(version, "cublasLtGetVersion");
  take(create, "cublasLtCreate");
  take(destroy, "cublasLtDestroy");
  take(product, "cublasLtMatmulDescCreate");
  take(set_product, "cublasLtMatmulDescSetAttribute");
  take(end_product, "cublasLtMatmulDescDestroy");
  take(matrix, "cublasLtMatrixLayoutCreate");
  take(end_matrix, "cublasLtMatrixLayoutDestroy");
  take(preference, "cublasLtMatmulPreferenceCreate");
  take(set_preference, "cublasLtMatmulPreferenceSetAttribute");
  take(end_preference, "cublasLtMatmulPreferenceDestroy");
  take(heuristics, "cublasLtMatmulAlgoGetHeuristic");
  take(multiply, "cublasLtMatmul");
}

const Library& Library::kept(const std::vector<std::string>& names) {
  static std::mutex mutex;
  // Never destroyed.
  static auto& loaded = *new std::map<std::vector<std::string>, const Library>;
  const std::lock_guard lock(mutex);
  const auto found = loaded.find(names);
  return found != loaded.end() ? found->second : loaded.emplace(names, names).first->second;
}

std::string Library::name() const {
  // Two digits each for minor and patch since 12; before it (11.x: 111103) as well.
  const std::size_t number = version();
  std::string name = "cuBLASLt " + std::to_string(number / 10000) + "." +
                     std::to_string(number / 100 % 100) + "." + std::to_string(number % 100);
  if (library.has("cwai_stand_in")) name += " (stand-in)";
  return name;
}

void Library::must(int status, const std::string& what) const {
  if (status == kSuccess) [[likely]]
    return;
  std::string said = "cublasStatus_t " + std::to_string(status);
  if (library.has("cublasLtGetStatusName"))
    said = library.function<const char*(int)>("cublasLtGetStatusName")(status);
  throw Error(Fault::kDevice, what, 0, said);
}

}  // namespace cwai::cublaslt

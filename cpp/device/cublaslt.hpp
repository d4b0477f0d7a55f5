// cuBLASLt, opened at run time: what of its binary interface a matrix product needs, declared by us
// after cublasLt.h and cublas_api.h of CUDA 11 to 13 (which agree).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "support/dynamic_library.hpp"

namespace cwai::cublaslt {

using Handle = void*;
using Descriptor = void*;  // of a product, a matrix or a preference

// cublasStatus_t
constexpr int kSuccess = 0, kInvalidValue = 7, kArchMismatch = 8, kNotSupported = 15;
// cudaDataType_t
constexpr int kReal32 = 0, kReal64 = 1, kReal16 = 2, kRealBrain16 = 14, kReal8E4M3 = 28;
// cublasComputeType_t
constexpr int kCompute32 = 68, kCompute64 = 70, kComputeTf32 = 77;
// cublasLtMatmulDescAttributes_t
constexpr int kTransposeA = 3, kFastAccumulation = 25;
// cublasOperation_t
constexpr std::int32_t kAsItIs = 0, kTransposed = 1;
// cublasLtMatmulPreferenceAttributes_t
constexpr int kMostWorkspace = 1, kReductions = 3;
// cublasLtReductionScheme_t
constexpr int kNoReduction = 0;

struct Algorithm {
  std::array<std::uint64_t, 8> data;
};

struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  int state;  ///< kSuccess, or why this one cannot be used.
  float waves;
  std::array<int, 4> reserved;
};
static_assert(sizeof(Heuristic) == 96);

/// The library. Functions as it has them; each gives a cublasStatus_t unless it says otherwise.
struct Library {
  /// The first of ``names`` (sonames or paths) that loads. Throws Error(kLibrary), with the
  /// loader's words for the last one, when none does.
  explicit Library(const std::vector<std::string>& names);

  /// As the constructor, once for the same names: what is loaded stays, for it takes long, and a
  /// library of CUDA does not like to go.
  static const Library& kept(const std::vector<std::string>& names);

  DynamicLibrary library;
  std::size_t (*version)();  ///< 120304 is 12.3.4.
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*product)(Descriptor*, int compute, int scale);
  int (*set_product)(Descriptor, int attribute, const void* value, std::size_t size);
  int (*end_product)(Descriptor);
  int (*matrix)(Descriptor*, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld);
  int (*end_matrix)(Descriptor);
  int (*preference)(Descriptor*);
  int (*set_preference)(Descriptor, int attribute, const void* value, std::size_t size);
  int (*end_preference)(Descriptor);
  int (*heuristics)(Handle, Descriptor product, Descriptor a, Descriptor b, Descriptor c,
                    Descriptor d, Descriptor preference, int wanted, Heuristic* found, int* count);
  int (*multiply)(Handle, Descriptor product, const void* alpha, const void* a, Descriptor a_is,
                  const void* b, Descriptor b_is, const void* beta, const void* c, Descriptor c_is,
                  void* d, Descriptor d_is, const Algorithm* algorithm, void* workspace,
                  std::size_t workspace_size, void* stream);

  /// ``cuBLASLt 12.3.4``; a stand-in says so.
  std::string name() const;
  /// Throws Error(kDevice) unless ``status`` is success.
  void must(int status, const std::string& what) const;
};

/// A descriptor, let go of by the function that belongs to it.
class Held {
 public:
  Held(int (*end)(Descriptor), Descriptor descriptor) noexcept
      : end_(end), descriptor_(descriptor) {}
  ~Held() {
    if (descriptor_ != nullptr) end_(descriptor_);
  }
  Held(Held&& other) noexcept : end_(other.end_), descriptor_(other.descriptor_) {
    other.descriptor_ = nullptr;
  }
  Held& operator=(Held&&) = delete;
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  Descriptor get() const noexcept { return descriptor_; }

 private:
  int (*end_)(Descriptor);
  Descriptor descriptor_;
};

}  // namespace cwai::cublaslt

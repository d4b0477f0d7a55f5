// A cuBLASLt without a GPU: products are computed on the CPU, in the order of a plain loop, when
// the fake libcuda's stream comes to them. It keeps the binary interface and nothing else: a few
// algorithms, all alike.
//
// Environment:
//   CWAI_FAKE_CUBLASLT_WRONG=N    every Nth product has one bit wrong, in the middle; a test in C++
//                                 asks for one after N others by fake_cublaslt_wrong_after(N)
//   CWAI_FAKE_CUBLASLT_CARD=1     only those of this card
//   CWAI_FAKE_CUBLASLT_BROKEN=1   every element of every product is wrong, and always the same
//   CWAI_FAKE_CUBLASLT_OLD=1      a library that knows no fp8
//   CWAI_FAKE_CUBLASLT_SPLITS=1   algorithms that may add up an element in parts come to another
//   result
//                                 each time
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kInvalidValue = 7, kNotSupported = 15;
constexpr int kReal32 = 0, kReal64 = 1, kReal16 = 2, kRealBrain16 = 14, kReal8E4M3 = 28;

long from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? 0 : std::strtol(value, nullptr, 10);
}

struct Matrix {
  int type;
  std::uint64_t rows, columns;
  std::int64_t ld;
};
struct Product {
  int compute, scale;
  std::int32_t transposed = 0;
};
struct Preference {
  std::size_t workspace = 0;
  std::uint32_t reductions = 7;  // all of them
};
struct Heuristic {
  std::array<std::uint64_t, 8> algorithm;
  std::size_t workspace;
  int state;
  float waves;
  std::array<int, 4> reserved;
};

std::size_t bytes_of(int type) {
  switch (type) {
    case kReal64:
      return 8;
    case kReal32:
      return 4;
    case kReal8E4M3:
      return 1;
    default:
      return 2;
  }
}

double value_of(int type, const std::byte* at) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, at, bytes_of(type));
  int exponent_bits = 8, mantissa_bits = 7;
  if (type == kReal64) {
    double value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (type == kReal32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (type == kReal16) exponent_bits = 5, mantissa_bits = 10;
  if (type == kReal8E4M3) exponent_bits = 4, mantissa_bits = 3;
  const auto fraction = static_cast<double>(bits & ((1U << mantissa_bits) - 1));
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1U << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double whole = exponent == 0 ? fraction : fraction + (1U << mantissa_bits);
  const double size = std::ldexp(whole, std::max(exponent, 1) - bias - mantissa_bits);
  return (bits >> (exponent_bits + mantissa_bits) & 1) != 0 ? -size : size;
}

// Rounded towards zero, as tensor cores may: within what a check must allow.
void put(int type, double value, std::byte* at) {
  if (type == kReal64) {
    std::memcpy(at, &value, sizeof value);
    return;
  }
  const auto single = static_cast<float>(value);
  if (type == kReal32) {
    std::memcpy(at, &single, sizeof single);
    return;
  }
  std::uint32_t bits = 0;
  std::memcpy(&bits, &single, sizeof bits);
  if (type == kRealBrain16) {
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(at, &half, sizeof half);
    return;
  }
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 127;
  std::uint16_t half = 0;
  if (exponent >= -14)
    half = static_cast<std::uint16_t>((exponent + 15) << 10 | (bits >> 13 & 0x3FF));
  half = static_cast<std::uint16_t>(half | (bits >> 31) << 15);
  std::memcpy(at, &half, sizeof half);
}

struct Job {
  Product product;
  Matrix a, b, d;
  const std::byte *left, *right;
  std::byte* out;
  int card;
  bool splits;
};

// How many products there are until the one wrong one that a test asked for; below 1 there will be
// none.
std::atomic<long> until_wrong{0};
std::atomic<long> products{0};

bool is_wrong(int card, bool splits) {
  if (--until_wrong == 0) return true;
  if (splits && from_environment("CWAI_FAKE_CUBLASLT_SPLITS") != 0) return ++products % 2 == 0;
  const long every = from_environment("CWAI_FAKE_CUBLASLT_WRONG");
  const char* only = std::getenv("CWAI_FAKE_CUBLASLT_CARD");
  if (every == 0 || (only != nullptr && card != std::atoi(only))) return false;
  return ++products % every == 0;
}

void multiply(const Job& job) {
  const std::uint64_t rows = job.d.rows, columns = job.d.columns;
  const std::uint64_t inner = job.b.rows;
  const auto values = [](const Matrix& matrix, const std::byte* data) {
    std::vector<double> all(matrix.rows * matrix.columns);
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] = value_of(matrix.type, data + i * bytes_of(matrix.type));
    return all;
  };
  const std::vector<double> left = values(job.a, job.left), right = values(job.b, job.right);
  const bool broken = from_environment("CWAI_FAKE_CUBLASLT_BROKEN") != 0;
  for (std::uint64_t j = 0; j < columns; ++j)
    for (std::uint64_t i = 0; i < rows; ++i) {
      double sum = 0;
      for (std::uint64_t k = 0; k < inner; ++k) {
        const double term =
            left[job.product.transposed != 0 ? k + i * inner : i + k * rows] * right[k + j * inner];
        sum = job.product.scale == kReal64 ? sum + term
                                           : static_cast<double>(static_cast<float>(sum + term));
      }
      put(job.d.type, broken ? sum * 1.5 + 1 : sum,
          job.out + (i + j * rows) * bytes_of(job.d.type));
    }
  const std::uint64_t middle = rows / 2 + columns / 2 * rows;
  std::byte* const at = job.out + middle * bytes_of(job.d.type);
  if (is_wrong(job.card, job.splits)) *at ^= std::byte{1};
}

template <typename Thing>
int end(void* thing) {
  delete static_cast<Thing*>(thing);
  return 0;
}

}  // namespace

EXPORTED const int cwai_stand_in = 1;
EXPORTED void fake_cublaslt_wrong_after(long products) { until_wrong = products + 1; }

EXPORTED std::size_t cublasLtGetVersion() { return 120304; }
EXPORTED const char* cublasLtGetStatusName(int) { return "CUBLAS_STATUS_OF_A_STAND_IN"; }
EXPORTED int cublasLtCreate(void** handle) {
  *handle = new int;
  return 0;
}
EXPORTED int cublasLtDestroy(void* handle) { return end<int>(handle); }

EXPORTED int cublasLtMatmulDescCreate(void** product, int compute, int scale) {
  *product = new Product{compute, scale};
  return 0;
}
EXPORTED int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value,
                                            std::size_t size) {
  if (attribute == 3) {
    if (size != sizeof(std::int32_t)) return kInvalidValue;
    std::memcpy(&static_cast<Product*>(product)->transposed, value, size);
  }
  return attribute == 3 || attribute == 25 ? 0 : kInvalidValue;
}
EXPORTED int cublasLtMatmulDescDestroy(void* product) { return end<Product>(product); }

EXPORTED int cublasLtMatrixLayoutCreate(void** matrix, int type, std::uint64_t rows,
                                        std::uint64_t columns, std::int64_t ld) {
  if (type == kReal8E4M3 && from_environment("CWAI_FAKE_CUBLASLT_OLD") != 0) return kInvalidValue;
  *matrix = new Matrix{type, rows, columns, ld};
  return 0;
}
EXPORTED int cublasLtMatrixLayoutDestroy(void* matrix) { return end<Matrix>(matrix); }

EXPORTED int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = new Preference;
  return 0;
}
EXPORTED int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute,
                                                  const void* value, std::size_t size) {
  auto& set = *static_cast<Preference*>(preference);
  if (attribute == 1 && size == sizeof set.workspace) {
    std::memcpy(&set.workspace, value, size);
    return 0;
  }
  if (attribute != 3 || size != sizeof set.reductions) return kInvalidValue;
  std::memcpy(&set.reductions, value, size);
  return 0;
}
EXPORTED int cublasLtMatmulPreferenceDestroy(void* preference) {
  return end<Preference>(preference);
}

EXPORTED int cublasLtMatmulAlgoGetHeuristic(void*, void* product, void* a, void*, void*, void*,
                                            void* preference, int wanted, Heuristic* found,
                                            int* count) {
  *count = 0;
  // fp8 is known with its first factor lying row by row alone.
  if (static_cast<Matrix*>(a)->type == kReal8E4M3 &&
      static_cast<Product*>(product)->transposed == 0)
    return kNotSupported;
  for (; *count < std::min(wanted, 3); ++*count) {
    found[*count] = {};
    found[*count].algorithm[0] = static_cast<std::uint64_t>(*count) + 1;
    found[*count].algorithm[1] = static_cast<Preference*>(preference)->reductions;
    found[*count].state = *count == 1 ? kNotSupported : 0;
  }
  return 0;
}

EXPORTED int cublasLtMatmul(void*, void* product, const void*, const void* a, void* a_is,
                            const void* b, void* b_is, const void*, const void*, void*, void* d,
                            void* d_is, const std::uint64_t* algorithm, void*, std::size_t,
                            void* stream) {
  if (algorithm == nullptr || algorithm[0] == 0) return kInvalidValue;
  using Host = int(void*, void (*)(void*), void*);
  void* const cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  static auto* const later = reinterpret_cast<Host*>(dlsym(cuda, "cuLaunchHostFunc"));
  static auto* const device = reinterpret_cast<int (*)(int*)>(dlsym(cuda, "cuCtxGetDevice"));
  auto job = std::make_unique<Job>();
  job->product = *static_cast<Product*>(product);
  job->a = *static_cast<Matrix*>(a_is);
  job->b = *static_cast<Matrix*>(b_is);
  job->d = *static_cast<Matrix*>(d_is);
  job->left = static_cast<const std::byte*>(a);
  job->right = static_cast<const std::byte*>(b);
  job->out = static_cast<std::byte*>(d);
  job->splits = algorithm[1] != 0;
  if (const int bad = device(&job->card)) return bad;
  return later(
      stream,
      [](void* data) {
        const std::unique_ptr<Job> job(static_cast<Job*>(data));
        multiply(*job);
      },
      job.release());
}

#include "device/gemm.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <span>

#include "device/kernels.hpp"
#include "support/error.hpp"
#include "support/pattern.hpp"
#include "support/progress.hpp"

namespace cwai {
namespace {

using cublaslt::Held;
using cublaslt::Library;

constexpr std::array<std::string_view, kPrecisions> kNames = {"fp64", "fp32", "tf32",
                                                              "bf16", "fp16", "fp8"};

// Floating point as IEEE 754 lays it out. ``type`` is cuBLASLt's.
struct Format {
  int type;
  std::size_t bytes;
  int exponent, mantissa;

  constexpr int bias() const noexcept { return (1 << (exponent - 1)) - 1; }
};
constexpr Format kDouble{cublaslt::kReal64, 8, 11, 52}, kSingle{cublaslt::kReal32, 4, 8, 23},
    kHalf{cublaslt::kReal16, 2, 5, 10}, kBrain{cublaslt::kRealBrain16, 2, 8, 7},
    kE4M3{cublaslt::kReal8E4M3, 1, 4, 3};

struct Kind {
  Format in, out;
  int mantissa;  // Bits of it that the factors have: of tf32 fewer than its format.
  int compute;
  double sum_error;  // Of one addition, relative to the larger side; 0 where nobody says.
};

// The half of what the last bit of a sum is worth.
constexpr double kSingleError = 0x1p-24, kDoubleError = 0x1p-53;

constexpr std::array<Kind, kPrecisions> kKinds = {{
    {kDouble, kDouble, 52, cublaslt::kCompute64, kDoubleError},
    {kSingle, kSingle, 23, cublaslt::kCompute32, kSingleError},
    {kSingle, kSingle, 10, cublaslt::kComputeTf32, kSingleError},
    {kBrain, kBrain, 7, cublaslt::kCompute32, kSingleError},
    {kHalf, kHalf, 10, cublaslt::kCompute32, kSingleError},
    {kE4M3, kBrain, 3, cublaslt::kCompute32, 0},
}};

constexpr const Kind& kind_of(Precision precision) noexcept {
  return kKinds[static_cast<std::size_t>(precision)];
}

// ------------------------------------------------------------------------------------------- data

// A prime: no row of a matrix, which is filled with this many elements again and again, is like
// another.
constexpr std::size_t kPeriod = 1048573;

// Of 256 numbers that are normally distributed, how many lie in [2, 4), [1, 2) and so on; the last
// count has all that are smaller.
constexpr std::array<unsigned, 6> kShares = {12, 70, 77, 47, 25, 25};

// The bits of one element: sign and mantissa random, the exponent as that of normal numbers.
std::uint64_t random_bits(const Kind& kind, std::uint64_t hash) noexcept {
  auto draw = static_cast<unsigned>(hash >> 52 & 0xFF);
  int exponent = 1;
  for (const unsigned share : kShares) {
    if (draw < share) break;
    draw -= share;
    --exponent;
  }
  const std::uint64_t fraction = (hash & ((std::uint64_t{1} << 52) - 1)) >> (52 - kind.mantissa);
  return (hash >> 63) << (kind.in.exponent + kind.in.mantissa) |
         static_cast<std::uint64_t>(exponent + kind.in.bias()) << kind.in.mantissa |
         fraction << (kind.in.mantissa - kind.mantissa);
}

double value_of(const Format& format, std::uint64_t bits) noexcept {
  const std::uint64_t fraction = bits & ((std::uint64_t{1} << format.mantissa) - 1);
  const auto exponent =
      static_cast<int>(bits >> format.mantissa & ((std::uint64_t{1} << format.exponent) - 1));
  const bool negative = (bits >> (format.exponent + format.mantissa) & 1) != 0;
  if (exponent == (1 << format.exponent) - 1)
    return fraction != 0
               ? std::numeric_limits<double>::quiet_NaN()
               : std::copysign(std::numeric_limits<double>::infinity(), negative ? -1 : 1);
  const double whole = static_cast<double>(
      exponent == 0 ? fraction : fraction | std::uint64_t{1} << format.mantissa);
  const double size = std::ldexp(whole, std::max(exponent, 1) - format.bias() - format.mantissa);
  return negative ? -size : size;
}

// The elements of one period of a factor, as the GPU has them.
std::vector<std::byte> period_of(const Kind& kind, std::uint64_t seed) {
  std::vector<std::byte> data(kPeriod * kind.in.bytes);
  for (std::size_t i = 0; i < kPeriod; ++i) {
    const std::uint64_t bits = random_bits(kind, mix(seed + i));
    std::memcpy(data.data() + i * kind.in.bytes, &bits, kind.in.bytes);  // little-endian
  }
  return data;
}

std::vector<double> values_of(const Kind& kind, const std::vector<std::byte>& period) {
  std::vector<double> values(kPeriod);
  for (std::size_t i = 0; i < kPeriod; ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, period.data() + i * kind.in.bytes, kind.in.bytes);
    values[i] = value_of(kind.in, bits);
  }
  return values;
}

// ---------------------------------------------------------------------------------------- product

constexpr std::size_t kWorkspace = 64 << 20;
constexpr int kProposals = 8;
constexpr int kPasses = 3;
// Trying them may take so long; the first is tried in any case.
constexpr Nanos kTuning = kSecond / 4;

// What a library says of a product that this GPU, or its own version, does not know.
bool is_unsupported(int status) noexcept {
  return status == cublaslt::kNotSupported || status == cublaslt::kInvalidValue ||
         status == cublaslt::kArchMismatch;
}

// One product of two square matrices, column by column as BLAS has them:
// result(i, j) = sum over k of a(i, k) · b(k, j).
class Gemm {
 public:
  Gemm(const Gpu& gpu, const Library& library, const GemmSpec& spec)
      : library_(library),
        kind_(kind_of(spec.precision)),
        size_(checked(spec.size)),
        stream_(gpu),
        handle_(library.destroy, made("cuBLASLt", library.create)),
        a_(gpu, elements() * kind_.in.bytes),
        b_(gpu, elements() * kind_.in.bytes),
        result_(gpu, result_bytes()),
        workspace_(gpu, kWorkspace),
        in_(matrix(kind_.in)),
        out_(matrix(kind_.out)),
        seed_(spec.seed) {
    fill(a_, period_of(kind_, seed_));
    fill(b_, period_of(kind_, mix(seed_)));
  }

  const Stream& stream() const noexcept { return stream_; }
  std::size_t size() const noexcept { return size_; }
  std::size_t result_bytes() const noexcept { return elements() * kind_.out.bytes; }
  const Kind& kind() const noexcept { return kind_; }
  std::byte* result() const noexcept { return result_.data(); }
  bool transposed() const noexcept { return chosen_->transposed; }
  std::size_t tried() const noexcept { return tried_; }
  double operations() const noexcept {
    const auto n = static_cast<double>(size_);
    return 2 * n * n * n;
  }

  // Takes the fastest of what the library proposes; false where it has nothing. ``whole``: if it
  // can be, of those that add up each element in one go. The library says that the others come to
  // the same result each time as well, but nobody is to be accused by what it says.
  bool tune(bool whole, const Watch& watch) {
    std::vector<Candidate> candidates = proposed(whole);
    if (whole && candidates.empty()) candidates = proposed(false);
    const Event start(stream_.gpu()), end(stream_.gpu());
    const Nanos over = now() + kTuning;
    Candidate* best = nullptr;
    for (int pass = 0; pass < kPasses; ++pass)
      for (Candidate& candidate : candidates) {
        if (candidate.unusable || (best != nullptr && now() >= over)) continue;
        // The first time the driver has to load it.
        if (pass == 0) {
          const int status = multiply(candidate, result());
          candidate.unusable = is_unsupported(status);
          if (candidate.unusable) continue;
          library_.must(status, "matrix product");
          ++tried_;
        }
        start.record(stream_);
        library_.must(multiply(candidate, result()), "matrix product");
        end.record(stream_);
        stream_.wait(watch);
        candidate.time = std::min(candidate.time, end.since(start));
        if (best == nullptr || candidate.time < best->time) best = &candidate;
      }
    if (best == nullptr) return false;
    chosen_ = std::make_unique<Candidate>(std::move(*best));
    return true;
  }

  void post(std::byte* to) const { library_.must(multiply(*chosen_, to), "matrix product"); }

  // What the CPU makes of one element, and how far the GPU may be from it.
  struct Exact {
    double value, bound;
  };
  Exact exact(std::size_t row, std::size_t column) {
    if (values_a_.empty()) {
      values_a_ = values_of(kind_, period_of(kind_, seed_));
      values_b_ = values_of(kind_, period_of(kind_, mix(seed_)));
    }
    double sum = 0, sizes = 0;
    for (std::size_t k = 0; k < size_; ++k) {
      const std::size_t left = transposed() ? k + row * size_ : row + k * size_;
      const double term = values_a_[left % kPeriod] * values_b_[(k + column * size_) % kPeriod];
      sum += term;
      sizes += std::abs(term);
    }
    // Each of the additions may be off by its error times the largest side, which no sum of sizes
    // falls below; four times: tensor cores cut off where others round, and align several terms at
    // once (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ
    // Computer Science 7:e330, 2021). Then the CPU's own additions, and the last rounding.
    const double additions = static_cast<double>(size_) * (4 * kind_.sum_error + kDoubleError);
    const double last = std::ldexp(1.0, -kind_.out.mantissa);
    return {sum, additions * sizes + last * std::abs(sum)};
  }

  double read(const std::byte* from, std::size_t row, std::size_t column) const {
    std::uint64_t bits = 0;
    const std::size_t at = (row + column * size_) * kind_.out.bytes;
    stream_.gpu().read({reinterpret_cast<std::byte*>(&bits), kind_.out.bytes}, from + at);
    return value_of(kind_.out, bits);
  }

 private:
  struct Candidate {
    Held product;
    bool transposed;
    cublaslt::Heuristic found;
    double time = std::numeric_limits<double>::infinity();
    bool unusable = false;
  };

  static std::size_t checked(std::size_t size) {
    if (size == 0 || size % 16 != 0) throw Error(Fault::kInvalid, "size=" + std::to_string(size));
    return size;
  }

  std::size_t elements() const noexcept { return size_ * size_; }

  template <typename... Arguments>
  cublaslt::Descriptor made(const char* what, int (*make)(cublaslt::Descriptor*, Arguments...),
                            Arguments... arguments) const {
    stream_.gpu().enter();
    cublaslt::Descriptor made = nullptr;
    library_.must(make(&made, arguments...), what);
    return made;
  }

  // A square matrix of ``format``; nothing where the library is older than the type.
  Held matrix(const Format& format) const {
    cublaslt::Descriptor made = nullptr;
    const int status =
        library_.matrix(&made, format.type, size_, size_, static_cast<std::int64_t>(size_));
    if (!is_unsupported(status)) library_.must(status, "matrix");
    return {library_.end_matrix, made};
  }

  Held product(bool transposed) const {
    const int scale = kind_.compute == cublaslt::kCompute64 ? cublaslt::kReal64 : cublaslt::kReal32;
    Held product(library_.end_product,
                 made("matrix product", library_.product, kind_.compute, scale));
    const auto set = [&](int attribute, auto value) {
      library_.must(library_.set_product(product.get(), attribute, &value, sizeof value),
                    "matrix product");
    };
    set(cublaslt::kTransposeA, transposed ? cublaslt::kTransposed : cublaslt::kAsItIs);
    // As its datasheet counts: sums of fp8 are not kept in fp32 all the time.
    if (kind_.in.type == cublaslt::kReal8E4M3) set(cublaslt::kFastAccumulation, std::int8_t{1});
    return product;
  }

  std::vector<Candidate> proposed(bool whole) const {
    std::vector<Candidate> candidates;
    if (in_.get() == nullptr || out_.get() == nullptr) return candidates;
    propose(true, whole, candidates);
    // fp8 knows no other layout ("cublasLtMatmul()", the library's manual).
    if (kind_.in.bytes > 1) propose(false, whole, candidates);
    return candidates;
  }

  void propose(bool transposed, bool whole, std::vector<Candidate>& candidates) const {
    const Held preference(library_.end_preference, made("preference", library_.preference));
    const auto set = [&](int attribute, auto value) {
      library_.must(library_.set_preference(preference.get(), attribute, &value, sizeof value),
                    "preference");
    };
    set(cublaslt::kMostWorkspace, kWorkspace);
    if (whole) set(cublaslt::kReductions, std::uint32_t{cublaslt::kNoReduction});
    const Held asked = product(transposed);
    std::array<cublaslt::Heuristic, kProposals> found{};
    int count = 0;
    const int status =
        library_.heuristics(handle_.get(), asked.get(), in_.get(), in_.get(), out_.get(),
                            out_.get(), preference.get(), kProposals, found.data(), &count);
    if (is_unsupported(status)) return;
    library_.must(status, "matrix product");
    for (int i = 0; i < std::min(count, kProposals); ++i)
      if (found[static_cast<std::size_t>(i)].state == cublaslt::kSuccess)
        candidates.push_back({product(transposed), transposed, found[static_cast<std::size_t>(i)]});
  }

  int multiply(const Candidate& candidate, std::byte* to) const {
    stream_.gpu().enter();
    // Of the type in which it is scaled.
    const double one = 1, zero = 0;
    const float one_single = 1, zero_single = 0;
    const bool wide = kind_.compute == cublaslt::kCompute64;
    const void* alpha = wide ? static_cast<const void*>(&one) : &one_single;
    const void* beta = wide ? static_cast<const void*>(&zero) : &zero_single;
    return library_.multiply(handle_.get(), candidate.product.get(), alpha, a_.data(), in_.get(),
                             b_.data(), in_.get(), beta, to, out_.get(), to, out_.get(),
                             &candidate.found.algorithm, workspace_.data(), kWorkspace,
                             stream_.handle());
  }

  // One period from the host, and the rest from what is there already.
  void fill(const GpuMemory& memory, const std::vector<std::byte>& period) const {
    std::size_t filled = std::min(period.size(), memory.size());
    stream_.gpu().write(memory.data(), std::span(period).first(filled));
    while (filled < memory.size()) {
      const std::size_t more = std::min(filled, memory.size() - filled);
      stream_.copy(memory.data() + filled, memory.data(), more);
      filled += more;
    }
  }

  const Library& library_;
  const Kind& kind_;
  std::size_t size_;
  Stream stream_;
  Held handle_;
  GpuMemory a_, b_, result_, workspace_;
  const Held in_, out_;
  std::uint64_t seed_;
  std::vector<double> values_a_, values_b_;
  std::unique_ptr<Candidate> chosen_;
  std::size_t tried_ = 0;
};

// One element in each square of so many rows and columns: an output tile, the work of one
// multiprocessor, is about as large.
constexpr std::size_t kTile = 256;

void compare_with_cpu(Gemm& gemm, ComputeResult& result, std::uint64_t seed, const Watch& watch) {
  const std::size_t tiles = (gemm.size() + kTile - 1) / kTile;
  for (std::size_t tile = 0; tile < tiles * tiles; ++tile) {
    watch.check();
    const std::uint64_t hash = mix(seed + tile);
    const auto within = [&](std::size_t which, std::uint64_t bits) {
      const std::size_t first = which * kTile;
      return first + bits % std::min(kTile, gemm.size() - first);
    };
    const std::size_t row = within(tile % tiles, hash & 0xFFFF),
                      column = within(tile / tiles, hash >> 16 & 0xFFFF);
    const Gemm::Exact exact = gemm.exact(row, column);
    const double found = gemm.read(gemm.result(), row, column);
    const double off = std::abs(found - exact.value) / exact.bound;
    ++result.sampled;
    if (!std::isnan(off)) result.worst = std::max(result.worst, off);
    if (off <= 1) continue;  // what is no number is beyond any bound
    if (result.beyond++ != 0) continue;
    result.row = static_cast<std::int64_t>(row);
    result.column = static_cast<std::int64_t>(column);
    result.first = result.later = found;
    result.exact = exact.value;
  }
}

// Which element of a word of 8 bytes differs, and what it is in both.
void name_element(Gemm& gemm, const std::byte* later, std::int64_t word, ComputeResult& result) {
  const std::size_t bytes = gemm.kind().out.bytes, many = sizeof(std::uint64_t) / bytes;
  std::array<std::array<std::byte, sizeof(std::uint64_t)>, 2> both{};
  const auto at = static_cast<std::size_t>(word) * sizeof(std::uint64_t);
  gemm.stream().gpu().read(both[0], gemm.result() + at);
  gemm.stream().gpu().read(both[1], later + at);
  std::size_t which = 0;
  while (which + 1 < many &&
         std::memcmp(both[0].data() + which * bytes, both[1].data() + which * bytes, bytes) == 0)
    ++which;
  const std::size_t index = at / bytes + which;
  const std::size_t row = index % gemm.size(), column = index / gemm.size();
  result.row = static_cast<std::int64_t>(row);
  result.column = static_cast<std::int64_t>(column);
  result.first = gemm.read(gemm.result(), row, column);
  result.later = gemm.read(later, row, column);
  result.exact = gemm.exact(row, column).value;
}

}  // namespace

Precision precision_of(std::string_view name) {
  for (std::size_t i = 0; i < kPrecisions; ++i)
    if (name == kNames[i]) return static_cast<Precision>(i);
  throw Error(Fault::kInvalid, "precision=" + std::string(name));
}

GemmResult measure_gemm(const Gpu& gpu, const Library& library, const GemmSpec& spec,
                        const Watch& watch) {
  ProgressOwner progress("gemm", spec.size);
  progress.phase(Phase::kWarmup);
  Gemm gemm(gpu, library, spec);
  GemmResult result;
  result.library = library.name();
  result.supported = gemm.tune(false, watch);
  if (!result.supported) return result;
  result.tried = gemm.tried();
  result.transposed = gemm.transposed();
  progress.phase(Phase::kTimed);
  result.samples =
      time_rounds(gemm.stream(), spec.timing, [&gemm] { gemm.post(gemm.result()); }, watch);
  for (double& sample : result.samples) sample = gemm.operations() / sample;
  return result;
}

ComputeResult check_compute(const Gpu& gpu, const Library& library, const GemmSpec& spec,
                            const Watch& watch) {
  ProgressOwner progress("compute", spec.size);
  progress.phase(Phase::kWarmup);
  Gemm gemm(gpu, library, spec);
  ComputeResult result;
  result.library = library.name();
  result.supported = gemm.tune(true, watch);
  if (!result.supported) return result;
  const GpuMemory later(gpu, gemm.result_bytes());
  Kernels kernels(gpu);
  progress.phase(Phase::kVerify);
  gemm.post(gemm.result());
  gemm.stream().wait(watch);
  if (gemm.kind().sum_error > 0) compare_with_cpu(gemm, result, spec.seed, watch);

  const Nanos end = now() + spec.timing.duration;
  while (result.wrong == 0 && result.products < spec.timing.most &&
         (result.products < spec.timing.least || now() < end)) {
    // Not a number in any type: what is not written is found.
    gemm.stream().fill(later.data(), 0xFF, later.size());
    gemm.post(later.data());
    kernels.compare(gemm.stream(), gemm.result(), later.data(), later.size());
    const Mismatch found = kernels.found(gemm.stream(), watch);
    progress.iteration(++result.products);
    result.wrong = found.wrong;
    if (found.wrong != 0) name_element(gemm, later.data(), found.first_bad, result);
  }
  return result;
}

}  // namespace cwai

#include "collective/mpi.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

// The binary interfaces we know, each with its type of handle, MPI_STATUS_IGNORE and MPI_IN_PLACE.
struct OpenMpi {
  using Handle = void*;
  static constexpr std::uintptr_t kStatusIgnore = 0;
  static constexpr std::uintptr_t kInPlace = 1;
};
struct Mpich {  // MPICH, Intel MPI, MVAPICH, Cray MPICH: one ABI by agreement (mpich.org/abi)
  using Handle = int;
  static constexpr std::uintptr_t kStatusIgnore = 1;
  static constexpr std::uintptr_t kInPlace = ~std::uintptr_t{0};
};

constexpr int kSuccess = 0;  // MPI_SUCCESS, by the standard
constexpr int kTag = 7;

DynamicLibrary library_of_this_process() {
  for (const std::string& path : loaded_libraries()) {
    const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
    if (!name.starts_with("libmpi")) continue;
    DynamicLibrary library = DynamicLibrary::already_loaded(path);
    if (library.has("MPI_Allreduce")) return library;
  }
  throw Error(Fault::kNoMpi, "");
}

std::string version_of(const DynamicLibrary& library) {
  // MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI and 8192 in MPICH.
  std::array<char, 8192> text{};
  int length = 0;
  library.function<int(char*, int*)>("MPI_Get_library_version")(text.data(), &length);
  const std::string all(text.data());
  return all.substr(0, all.find('\n'));
}

template <typename Abi>
class Mpi final : public MpiRanks {
  using Handle = typename Abi::Handle;

 public:
  Mpi(DynamicLibrary library, const MpiHandles& given)
      : library_(std::move(library)), given_(given), version_(version_of(library_)) {
    const auto dup = symbol<int(Handle, Handle*)>("MPI_Comm_dup");
    require(dup(handle(given.comm), &comm_), "MPI_Comm_dup");
    const auto errors = symbol<int(Handle, Handle)>("MPI_Comm_set_errhandler");
    require(errors(comm_, handle(given.errors_return)), "MPI_Comm_set_errhandler");
    require(symbol<int(Handle, int*)>("MPI_Comm_rank")(comm_, &rank_), "MPI_Comm_rank");
    require(symbol<int(Handle, int*)>("MPI_Comm_size")(comm_, &size_), "MPI_Comm_size");
  }

  // When MPI has ended the communicator is gone, and to free it would abort the process.
  ~Mpi() override {
    int ended = 0;
    library_.function<int(int*)>("MPI_Finalized")(&ended);
    if (ended == 0) library_.function<int(Handle*)>("MPI_Comm_free")(&comm_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::span<const int> members() const noexcept override { return {&rank_, 1}; }
  std::string library() const override { return version_; }

  void barrier() override { require(barrier_(comm_), "MPI_Barrier"); }
  void largest(std::span<double> values) override { everywhere(values, given_.max); }
  void least(std::span<double> values) override { everywhere(values, given_.min); }
  void broadcast(std::span<std::byte> data, int root) override {
    require(broadcast_(data.data(), counted(data.size()), handle(given_.byte), root, comm_),
            "MPI_Bcast");
  }
  double exchange(double mine, int with) override {
    double theirs = 0;
    const Handle type = element(Element::kFloat64);
    require(send_recv_(&mine, 1, type, with, kTag, &theirs, 1, type, with, kTag, comm_, ignored()),
            "MPI_Sendrecv");
    return theirs;
  }

  bool can(Operation operation, Element element, Reduction reduction,
           bool in_place) const noexcept override {
    if (given_.elements[static_cast<std::size_t>(element)] == 0) return false;
    if (reduces(operation) && given_.reductions[static_cast<std::size_t>(reduction)] == 0)
      return false;
    // MPI puts the result of a reduce_scatter elsewhere in place than the others do.
    return !in_place || operation == Operation::kAllReduce || operation == Operation::kAllGather ||
           operation == Operation::kBroadcast || operation == Operation::kReduce ||
           operation == Operation::kGather || operation == Operation::kScatter;
  }

  void post(const Call& c) override {
    const Handle type = element(c.element);
    const int count = counted(c.count);
    void* receive = c.receive[0];
    // In place all members say so instead of naming what they send; where there is a root, it
    // alone.
    void* const in_place = reinterpret_cast<void*>(Abi::kInPlace);
    const bool says_so = c.in_place && (!has_root(c.operation) || rank_ == c.root);
    const void* send = says_so ? in_place : static_cast<const void*>(c.send[0]);
    switch (c.operation) {
      case Operation::kAllReduce:
        return require(all_reduce_(send, receive, count, type, reduction(c.reduction), comm_),
                       "MPI_Allreduce");
      case Operation::kAllGather:
        return require(all_gather_(send, count, type, receive, count, type, comm_),
                       "MPI_Allgather");
      case Operation::kReduceScatter:
        return require(reduce_scatter_(send, receive, count, type, reduction(c.reduction), comm_),
                       "MPI_Reduce_scatter_block");
      case Operation::kBroadcast: {
        // The root reads its send buffer, so that no rank's receive buffer holds the answer
        // beforehand.
        void* buffer = rank_ == c.root && !c.in_place ? const_cast<void*>(send) : receive;
        return require(broadcast_(buffer, count, type, c.root, comm_), "MPI_Bcast");
      }
      case Operation::kReduce:
        return require(reduce_(send, receive, count, type, reduction(c.reduction), c.root, comm_),
                       "MPI_Reduce");
      case Operation::kAllToAll:
        return require(all_to_all_(send, count, type, receive, count, type, comm_), "MPI_Alltoall");
      case Operation::kAllToAllV: {
        const Blocks& b = blocks(c);
        return require(
            all_to_all_v_(send, b.send_counts.data(), b.send_offsets.data(), type, receive,
                          b.receive_counts.data(), b.receive_offsets.data(), type, comm_),
            "MPI_Alltoallv");
      }
      case Operation::kGather:
        return require(gather_(send, count, type, receive, count, type, c.root, comm_),
                       "MPI_Gather");
      case Operation::kScatter:
        return require(scatter_(c.send[0], count, type, says_so ? in_place : receive, count, type,
                                c.root, comm_),
                       "MPI_Scatter");
      case Operation::kSendRecv:
        return require(send_recv_(send, count, type, (rank_ + 1) % size_, kTag, receive, count,
                                  type, (rank_ + size_ - 1) % size_, kTag, comm_, ignored()),
                       "MPI_Sendrecv");
    }
  }

 private:
  // Of alltoallv, as MPI counts: they depend on the count of a call alone.
  struct Blocks {
    std::size_t count = 0;
    std::vector<int> send_counts, send_offsets, receive_counts, receive_offsets;
  };

  static Handle handle(std::uint64_t value) noexcept {
    if constexpr (std::is_pointer_v<Handle>) {
      return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(value));
    } else {
      return static_cast<Handle>(static_cast<std::uint32_t>(value));
    }
  }
  static void* ignored() noexcept { return reinterpret_cast<void*>(Abi::kStatusIgnore); }
  static int counted(std::size_t count) {
    if (count > static_cast<std::size_t>(std::numeric_limits<int>::max()))
      throw Error(Fault::kInvalid, "more elements than an MPI count holds");
    return static_cast<int>(count);
  }
  Handle element(Element element) const noexcept {
    return handle(given_.elements[static_cast<std::size_t>(element)]);
  }
  Handle reduction(Reduction reduction) const noexcept {
    return handle(given_.reductions[static_cast<std::size_t>(reduction)]);
  }

  void everywhere(std::span<double> values, std::uint64_t op) {
    const std::vector<double> mine(values.begin(), values.end());
    require(all_reduce_(mine.data(), values.data(), counted(values.size()),
                        element(Element::kFloat64), handle(op), comm_),
            "MPI_Allreduce");
  }

  const Blocks& blocks(const Call& call) {
    if (blocks_.count == call.count) return blocks_;
    const Uneven& uneven = call.uneven.front();
    const auto ints = [](const std::vector<std::size_t>& from) {
      std::vector<int> to;
      std::transform(from.begin(), from.end(), std::back_inserter(to), counted);
      return to;
    };
    blocks_ = {call.count, ints(uneven.send_counts), ints(uneven.send_offsets),
               ints(uneven.receive_counts), ints(uneven.receive_offsets)};
    return blocks_;
  }

  void require(int code, const char* call) const {
    if (code == kSuccess) [[likely]]
      return;
    std::array<char, 1024> text{};  // MPI_MAX_ERROR_STRING is 256 in Open MPI, 512 in MPICH
    int length = 0;
    library_.function<int(int, char*, int*)>("MPI_Error_string")(code, text.data(), &length);
    throw Error(Fault::kMpi, call, 0, text.data());
  }

  template <typename Function>
  Function* symbol(const char* name) const {
    return library_.function<Function>(name);
  }

  using Gathering = int(const void*, int, Handle, void*, int, Handle, Handle);
  using Rooted = int(const void*, int, Handle, void*, int, Handle, int, Handle);

  DynamicLibrary library_;
  MpiHandles given_;
  std::string version_;
  Handle comm_{};
  int rank_ = 0, size_ = 0;
  Blocks blocks_;
  int (*barrier_)(Handle) = symbol<int(Handle)>("MPI_Barrier");
  int (*all_reduce_)(const void*, void*, int, Handle, Handle, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, Handle)>("MPI_Allreduce");
  Gathering* all_gather_ = symbol<Gathering>("MPI_Allgather");
  int (*reduce_scatter_)(const void*, void*, int, Handle, Handle, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, Handle)>("MPI_Reduce_scatter_block");
  int (*broadcast_)(void*, int, Handle, int,
                    Handle) = symbol<int(void*, int, Handle, int, Handle)>("MPI_Bcast");
  Gathering* all_to_all_ = symbol<Gathering>("MPI_Alltoall");
  int (*all_to_all_v_)(const void*, const int*, const int*, Handle, void*, const int*, const int*,
                       Handle, Handle) =
      symbol<int(const void*, const int*, const int*, Handle, void*, const int*, const int*, Handle,
                 Handle)>("MPI_Alltoallv");
  int (*reduce_)(const void*, void*, int, Handle, Handle, int, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, int, Handle)>("MPI_Reduce");
  Rooted* gather_ = symbol<Rooted>("MPI_Gather");
  Rooted* scatter_ = symbol<Rooted>("MPI_Scatter");
  int (*send_recv_)(const void*, int, Handle, int, int, void*, int, Handle, int, int, Handle,
                    void*) = symbol<int(const void*, int, Handle, int, int, void*, int, Handle, int,
                                        int, Handle, void*)>("MPI_Sendrecv");
};

}  // namespace

std::unique_ptr<MpiRanks> mpi_ranks(const MpiHandles& handles) {
  DynamicLibrary library = library_of_this_process();
  if (library.has("ompi_mpi_comm_self"))
    return std::make_unique<Mpi<OpenMpi>>(std::move(library), handles);
  const std::string version = version_of(library);
  for (const char* kin : {"MPICH", "Intel(R) MPI", "MVAPICH"})
    if (version.find(kin) != std::string::npos)
      return std::make_unique<Mpi<Mpich>>(std::move(library), handles);
  throw Error(Fault::kUnknownMpi, library.name(), 0, version);
}

}  // namespace cwai

#include "collective/mpi.hpp"

#include <array>
#include <string_view>
#include <type_traits>

#include "support/dynamic_library.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

// The binary interfaces we know, each with its type of handle and its MPI_STATUS_IGNORE.
struct OpenMpi {
  using Handle = void*;
  static constexpr std::uintptr_t kStatusIgnore = 0;
};
struct Mpich {  // MPICH, Intel MPI, MVAPICH, Cray MPICH: one ABI by agreement (mpich.org/abi)
  using Handle = int;
  static constexpr std::uintptr_t kStatusIgnore = 1;
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
class Mpi final : public CollectiveBackend {
  using Handle = typename Abi::Handle;

 public:
  Mpi(DynamicLibrary library, const MpiHandles& given)
      : library_(std::move(library)),
        types_{handle(given.float32), handle(given.float64), handle(given.int32)},
        sum_(handle(given.sum)),
        max_(handle(given.max)) {
    const auto dup = library_.function<int(Handle, Handle*)>("MPI_Comm_dup");
    require(dup(handle(given.comm), &comm_), "MPI_Comm_dup");
    const auto errors = library_.function<int(Handle, Handle)>("MPI_Comm_set_errhandler");
    require(errors(comm_, handle(given.errors_return)), "MPI_Comm_set_errhandler");
    require(library_.function<int(Handle, int*)>("MPI_Comm_rank")(comm_, &rank_), "MPI_Comm_rank");
    require(library_.function<int(Handle, int*)>("MPI_Comm_size")(comm_, &size_), "MPI_Comm_size");
  }

  // When MPI has ended the communicator is gone, and to free it would abort the process.
  ~Mpi() override {
    int ended = 0;
    library_.function<int(int*)>("MPI_Finalized")(&ended);
    if (ended == 0) library_.function<int(Handle*)>("MPI_Comm_free")(&comm_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  void barrier() override { require(barrier_(comm_), "MPI_Barrier"); }

  void run(const Call& c) override {
    const Handle type = types_[static_cast<std::size_t>(c.element)];
    switch (c.operation) {
      case Operation::kAllReduce:
        return require(all_reduce_(c.send, c.receive, c.count, type, sum_, comm_), "MPI_Allreduce");
      case Operation::kAllGather:
        return require(all_gather_(c.send, c.count, type, c.receive, c.count, type, comm_),
                       "MPI_Allgather");
      case Operation::kReduceScatter:
        return require(reduce_scatter_(c.send, c.receive, c.count, type, sum_, comm_),
                       "MPI_Reduce_scatter_block");
      case Operation::kBroadcast: {
        // The root reads its send buffer, so that no rank's receive buffer holds the answer
        // beforehand.
        void* buffer = rank_ == 0 ? const_cast<void*>(c.send) : c.receive;
        return require(broadcast_(buffer, c.count, type, 0, comm_), "MPI_Bcast");
      }
      case Operation::kAllToAll:
        return require(all_to_all_(c.send, c.count, type, c.receive, c.count, type, comm_),
                       "MPI_Alltoall");
      case Operation::kReduce:
        return require(reduce_(c.send, c.receive, c.count, type, sum_, 0, comm_), "MPI_Reduce");
      case Operation::kSendRecv:
        return require(send_recv_(c.send, c.count, type, (rank_ + 1) % size_, kTag, c.receive,
                                  c.count, type, (rank_ + size_ - 1) % size_, kTag, comm_,
                                  reinterpret_cast<void*>(Abi::kStatusIgnore)),
                       "MPI_Sendrecv");
    }
  }

  Values largest(const Values& mine) override {
    Values all{};
    require(all_reduce_(mine.data(), all.data(), static_cast<int>(mine.size()),
                        types_[static_cast<std::size_t>(Element::kFloat64)], max_, comm_),
            "MPI_Allreduce");
    return all;
  }

 private:
  static Handle handle(std::uint64_t value) noexcept {
    if constexpr (std::is_pointer_v<Handle>) {
      return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(value));
    } else {
      return static_cast<Handle>(static_cast<std::uint32_t>(value));
    }
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

  DynamicLibrary library_;
  std::array<Handle, 3> types_;
  Handle sum_, max_;
  Handle comm_{};
  int rank_ = 0, size_ = 0;
  int (*barrier_)(Handle) = symbol<int(Handle)>("MPI_Barrier");
  int (*all_reduce_)(const void*, void*, int, Handle, Handle, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, Handle)>("MPI_Allreduce");
  int (*all_gather_)(const void*, int, Handle, void*, int, Handle, Handle) =
      symbol<int(const void*, int, Handle, void*, int, Handle, Handle)>("MPI_Allgather");
  int (*reduce_scatter_)(const void*, void*, int, Handle, Handle, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, Handle)>("MPI_Reduce_scatter_block");
  int (*broadcast_)(void*, int, Handle, int,
                    Handle) = symbol<int(void*, int, Handle, int, Handle)>("MPI_Bcast");
  int (*all_to_all_)(const void*, int, Handle, void*, int, Handle, Handle) =
      symbol<int(const void*, int, Handle, void*, int, Handle, Handle)>("MPI_Alltoall");
  int (*reduce_)(const void*, void*, int, Handle, Handle, int, Handle) =
      symbol<int(const void*, void*, int, Handle, Handle, int, Handle)>("MPI_Reduce");
  int (*send_recv_)(const void*, int, Handle, int, int, void*, int, Handle, int, int, Handle,
                    void*) = symbol<int(const void*, int, Handle, int, int, void*, int, Handle, int,
                                        int, Handle, void*)>("MPI_Sendrecv");
};

}  // namespace

std::unique_ptr<CollectiveBackend> mpi_backend(const MpiHandles& handles) {
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

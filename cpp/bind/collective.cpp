#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bind/rooms.hpp"
#include "collective/hccl.hpp"
#include "collective/loopback.hpp"
#include "collective/mpi.hpp"
#include "collective/nccl.hpp"
#include "collective/sweep.hpp"
#include "device/ascend.hpp"
#include "support/error.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

py::array_t<double> array_of(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::list arrays_of(const std::vector<std::vector<double>>& rows) {
  py::list all;
  for (const std::vector<double>& row : rows) all.append(array_of(row));
  return all;
}

// The processes that meet, the library that is measured, and the sweep over both.
class Collective {
 public:
  Collective(std::unique_ptr<Meeting> meeting, std::unique_ptr<CollectiveBackend> backend,
             std::size_t largest)
      : meeting_(std::move(meeting)),
        own_(std::move(backend)),
        backend_(*own_),
        sweep_(*meeting_, backend_, largest) {}
  // Of MPI both are one.
  Collective(std::unique_ptr<MpiRanks> ranks, std::size_t largest)
      : meeting_(std::move(ranks)),
        backend_(static_cast<MpiRanks&>(*meeting_)),
        sweep_(*meeting_, backend_, largest) {}

  int size() const noexcept { return backend_.size(); }
  std::vector<int> members() const {
    return {backend_.members().begin(), backend_.members().end()};
  }
  std::string library() const { return backend_.library(); }
  bool broken() const noexcept { return backend_.broken(); }
  py::tuple clock() const {
    return py::make_tuple(sweep_.clock().seconds, sweep_.clock().uncertainty);
  }
  bool can(const std::string& operation, const std::string& dtype, const std::string& reduction,
           bool in_place) const {
    return backend_.can(operation_of(operation), element_of(dtype), reduction_of(reduction),
                        in_place);
  }

  // The memory itself, by address: only the host's can be looked at from here.
  py::tuple buffers() const {
    const auto addresses = [](const std::vector<std::byte*>& buffers) {
      std::vector<std::uintptr_t> all;
      for (const std::byte* at : buffers) all.push_back(reinterpret_cast<std::uintptr_t>(at));
      return all;
    };
    return py::make_tuple(addresses(sweep_.buffers().send), addresses(sweep_.buffers().receive));
  }

  py::dict measure(const std::string& operation, const std::string& dtype,
                   const std::string& reduction, int root, bool in_place, std::size_t bytes,
                   std::uint64_t iterations, std::uint64_t least, std::uint64_t most, double limit,
                   std::uint64_t warmup, bool verify, std::uint64_t seed, bool isolated,
                   bool pipelined, bool graph, double late, double timeout) {
    const PointSpec spec{.operation = operation_of(operation),
                         .element = element_of(dtype),
                         .reduction = reduction_of(reduction),
                         .root = root,
                         .in_place = in_place,
                         .bytes = bytes,
                         .iterations = iterations,
                         .least = least,
                         .most = most,
                         .limit = nanos(limit),
                         .warmup = warmup,
                         .verify = verify,
                         .seed = seed,
                         .isolated = isolated,
                         .pipelined = pipelined,
                         .graph = graph,
                         .late = nanos(late)};
    PointResult result;
    {
      const py::gil_scoped_release released;  // the beat of this rank must go on
      result = sweep_.measure(spec, Watch(nanos(timeout)));
    }
    std::vector<std::uint64_t> wrong;
    std::vector<std::int64_t> first_bad;
    for (const Mismatch& found : result.found) {
      wrong.push_back(found.wrong);
      first_bad.push_back(found.first_bad);
    }
    return py::dict(
        "bytes"_a = result.bytes, "count"_a = result.count, "warmup"_a = result.warmup,
        "wrong"_a = wrong, "first_bad"_a = first_bad, "times"_a = array_of(result.times),
        "posts"_a = array_of(result.posts), "device"_a = arrays_of(result.device),
        "lateness"_a = arrays_of(result.lateness), "pipelined"_a = result.pipelined,
        "graphed"_a = result.graphed, "pipelined_iterations"_a = result.pipelined_iterations);
  }

 private:
  std::unique_ptr<Meeting> meeting_;
  std::unique_ptr<CollectiveBackend> own_;
  CollectiveBackend& backend_;
  Sweep sweep_;
};

// Everything that mpi4py hands over, as it hands it over.
MpiHandles handles_of(const py::dict& mpi) {
  MpiHandles handles{};
  handles.comm = mpi["comm"].cast<std::uint64_t>();
  for (const auto& [name, handle] : mpi["elements"].cast<py::dict>())
    handles.elements[static_cast<std::size_t>(element_of(name.cast<std::string>()))] =
        handle.cast<std::uint64_t>();
  for (const auto& [name, handle] : mpi["reductions"].cast<py::dict>())
    handles.reductions[static_cast<std::size_t>(reduction_of(name.cast<std::string>()))] =
        handle.cast<std::uint64_t>();
  handles.byte = mpi["byte"].cast<std::uint64_t>();
  handles.min = mpi["min"].cast<std::uint64_t>();
  handles.max = mpi["max"].cast<std::uint64_t>();
  handles.errors_return = mpi["errors_return"].cast<std::uint64_t>();
  return handles;
}

// Where the processes meet: over MPI, or nowhere.
std::unique_ptr<Meeting> meeting_over(const std::optional<py::dict>& mpi) {
  if (mpi) return mpi_ranks(handles_of(*mpi));
  return std::make_unique<NobodyElse>();
}

}  // namespace

void register_collective(py::module_& m) {
  m.def(
      "npus",
      [] {
        const py::gil_scoped_release released;
        Npu::open();
        return Npu::count();
      },
      "How many Ascend NPUs this process sees.");
  m.def("hccl_path", &hccl_path, py::kw_only(), "library"_a,
        "The libhccl that this process would use.");
  py::class_<Collective>(m, "Collective", "A group of one collective library.")
      .def_static(
          "mpi",
          [](const py::dict& mpi, std::size_t largest) {
            return std::make_unique<Collective>(mpi_ranks(handles_of(mpi)), largest);
          },
          py::kw_only(), "mpi"_a, "largest"_a)
      .def_static(
          "nccl",
          [](const std::optional<py::dict>& mpi, const std::vector<int>& cards,
             const std::string& library, int collnet, bool registered, std::size_t largest,
             double timeout) {
            std::unique_ptr<Meeting> meeting = meeting_over(mpi);
            const py::gil_scoped_release released;  // it waits for the others
            auto backend = nccl_backend(*meeting, {library, cards, collnet, registered},
                                        Watch(nanos(timeout)));
            return std::make_unique<Collective>(std::move(meeting), std::move(backend), largest);
          },
          py::kw_only(), "mpi"_a, "cards"_a, "library"_a, "collnet"_a, "registered"_a, "largest"_a,
          "timeout"_a)
      .def_static(
          "hccl",
          [](const std::optional<py::dict>& mpi, const std::vector<int>& cards,
             const std::string& library, std::size_t largest, double timeout) {
            std::unique_ptr<Meeting> meeting = meeting_over(mpi);
            const py::gil_scoped_release released;  // it waits for the others
            auto backend = hccl_backend(*meeting, {library, cards}, Watch(nanos(timeout)));
            return std::make_unique<Collective>(std::move(meeting), std::move(backend), largest);
          },
          py::kw_only(), "mpi"_a, "cards"_a, "library"_a, "largest"_a, "timeout"_a)
      .def_static(
          "loopback",
          [](int members, std::size_t largest) {
            return std::make_unique<Collective>(std::make_unique<NobodyElse>(),
                                                loopback_group(members), largest);
          },
          py::kw_only(), "members"_a, "largest"_a)
      .def_property_readonly("size", &Collective::size)
      .def_property_readonly("members", &Collective::members)
      .def_property_readonly("library", &Collective::library)
      .def_property_readonly("broken", &Collective::broken)
      .def_property_readonly("clock", &Collective::clock)
      .def_property_readonly("buffers", &Collective::buffers)
      .def("can", &Collective::can, py::kw_only(), "operation"_a, "dtype"_a, "reduction"_a,
           "in_place"_a)
      .def("measure", &Collective::measure, py::kw_only(), "operation"_a, "dtype"_a, "reduction"_a,
           "root"_a, "in_place"_a, "bytes"_a, "iterations"_a, "least"_a, "most"_a, "limit"_a,
           "warmup"_a, "verify"_a, "seed"_a, "isolated"_a, "pipelined"_a, "graph"_a, "late"_a,
           "timeout"_a);
}

}  // namespace cwai

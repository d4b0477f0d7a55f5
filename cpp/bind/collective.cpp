#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bind/rooms.hpp"
#include "collective/mpi.hpp"
#include "collective/sweep.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

class MpiSweep {
 public:
  MpiSweep(const MpiHandles& handles, std::size_t largest)
      : backend_(mpi_backend(handles)), sweep_(*backend_, largest) {}

  // Views of the memory itself; ``self`` lives as long as they do.
  static py::tuple buffers(const py::object& self) {
    Sweep& sweep = self.cast<MpiSweep&>().sweep_;
    const auto view = [&self](std::span<std::byte> bytes) {
      return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(bytes.size()),
                                       reinterpret_cast<std::uint8_t*>(bytes.data()), self);
    };
    return py::make_tuple(view(sweep.send_buffer()), view(sweep.receive_buffer()));
  }

  py::dict measure(const std::string& operation, const std::string& dtype, std::size_t bytes,
                   std::uint64_t iterations, std::uint64_t least, std::uint64_t most, double limit,
                   std::uint64_t warmup, bool verify, std::uint64_t seed, double timeout) {
    const PointSpec spec{.operation = operation_of(operation),
                         .element = element_of(dtype),
                         .bytes = bytes,
                         .iterations = iterations,
                         .least = least,
                         .most = most,
                         .limit = nanos(limit),
                         .warmup = warmup,
                         .verify = verify,
                         .seed = seed};
    PointResult result;
    {
      const py::gil_scoped_release released;  // the beat of this rank must go on
      result = sweep_.measure(spec, Watch(nanos(timeout)));
    }
    return py::dict("bytes"_a = result.bytes, "count"_a = result.count,
                    "samples"_a = py::array_t<double>(
                        static_cast<py::ssize_t>(result.samples.size()), result.samples.data()),
                    "warmup"_a = result.warmup, "wrong"_a = result.wrong,
                    "first_bad"_a = result.first_bad);
  }

 private:
  std::unique_ptr<CollectiveBackend> backend_;
  Sweep sweep_;
};

}  // namespace

void register_collective(py::module_& m) {
  py::class_<MpiSweep>(m, "MpiSweep", "Collectives of the MPI in this process.")
      .def(py::init([](std::uint64_t comm, std::uint64_t float32, std::uint64_t float64,
                       std::uint64_t int32, std::uint64_t sum, std::uint64_t max,
                       std::uint64_t errors_return, std::size_t largest) {
             return std::make_unique<MpiSweep>(
                 MpiHandles{comm, float32, float64, int32, sum, max, errors_return}, largest);
           }),
           py::kw_only(), "comm"_a, "float32"_a, "float64"_a, "int32"_a, "sum"_a, "max"_a,
           "errors_return"_a, "largest"_a)
      .def_property_readonly("buffers", &MpiSweep::buffers)
      .def("measure", &MpiSweep::measure, py::kw_only(), "operation"_a, "dtype"_a, "bytes"_a,
           "iterations"_a, "least"_a, "most"_a, "limit"_a, "warmup"_a, "verify"_a, "seed"_a,
           "timeout"_a);
}

}  // namespace cwai

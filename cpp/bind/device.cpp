#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bind/rooms.hpp"
#include "device/copy.hpp"
#include "device/cuda.hpp"
#include "device/gemm.hpp"
#include "device/memory_check.hpp"
#include "support/error.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

py::array_t<double> to_numpy(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

Direction to_direction(const std::string& name) {
  if (name == "there") return Direction::kThere;
  if (name == "back") return Direction::kBack;
  if (name == "both") return Direction::kBoth;
  throw Error(Fault::kInvalid, "direction=" + name);
}

TimingSpec timing(double duration, std::size_t least, std::size_t most) {
  return {.duration = nanos(duration), .least = least, .most = most};
}

py::dict to_dict(const CopyResult& result) {
  return py::dict("samples"_a = to_numpy(result.samples), "wrong"_a = result.found.wrong,
                  "first_bad"_a = result.found.first_bad);
}

// Runs ``body`` without the GIL: other cards, and the beat of this rank, go on.
template <typename Body>
auto freely(Body body) {
  const py::gil_scoped_release released;
  return body();
}

py::list gpus() {
  py::list all;
  for (int ordinal = 0, count = Gpu::count(); ordinal < count; ++ordinal) {
    const Gpu gpu(ordinal);
    const Gpu::Memory memory = gpu.memory();
    const auto asked = [&gpu](GpuAttribute which) { return gpu.attribute(which); };
    all.append(py::dict("ordinal"_a = ordinal, "name"_a = gpu.name(), "pci"_a = gpu.pci(),
                        "memory_total"_a = memory.total, "memory_free"_a = memory.free,
                        "multiprocessors"_a = asked(GpuAttribute::kMultiprocessors),
                        "major"_a = asked(GpuAttribute::kComputeMajor),
                        "minor"_a = asked(GpuAttribute::kComputeMinor),
                        "l2_bytes"_a = asked(GpuAttribute::kL2Bytes)));
  }
  return all;
}

GemmSpec gemm_spec(const std::string& precision, std::size_t size, std::uint64_t seed,
                   const TimingSpec& timing) {
  return {.precision = precision_of(precision), .size = size, .seed = seed, .timing = timing};
}

}  // namespace

void register_device(py::module_& m) {
  m.def("gpus", &gpus, "The NVIDIA GPUs that this process sees.");

  m.def(
      "gpu_copy",
      [](int gpu, std::size_t bytes, int streams, double duration, std::size_t least,
         std::size_t most, std::uint64_t seed, double timeout) {
        return to_dict(freely([&] {
          return measure_card_copy(Gpu(gpu), streams, {bytes, timing(duration, least, most), seed},
                                   Watch(nanos(timeout)));
        }));
      },
      py::kw_only(), "gpu"_a, "bytes"_a, "streams"_a, "duration"_a, "least"_a, "most"_a, "seed"_a,
      "timeout"_a);

  m.def(
      "gpu_host_copy",
      [](int gpu, const std::string& direction, std::size_t bytes, double duration,
         std::size_t least, std::size_t most, std::uint64_t seed, double timeout) {
        const Direction way = to_direction(direction);
        return to_dict(freely([&] {
          return measure_host_copy(Gpu(gpu), way, {bytes, timing(duration, least, most), seed},
                                   Watch(nanos(timeout)));
        }));
      },
      py::kw_only(), "gpu"_a, "direction"_a, "bytes"_a, "duration"_a, "least"_a, "most"_a, "seed"_a,
      "timeout"_a);

  m.def(
      "gpu_peer_copy",
      [](int source, int target, const std::string& direction, std::size_t bytes, double duration,
         std::size_t least, std::size_t most, std::uint64_t seed, double timeout) {
        const Direction way = to_direction(direction);
        const PeerResult result = freely([&] {
          return measure_peer_copy(Gpu(source), Gpu(target), way,
                                   {bytes, timing(duration, least, most), seed},
                                   Watch(nanos(timeout)));
        });
        py::dict told = to_dict(result);
        told["direct"] = result.direct;
        return told;
      },
      py::kw_only(), "source"_a, "target"_a, "direction"_a, "bytes"_a, "duration"_a, "least"_a,
      "most"_a, "seed"_a, "timeout"_a);

  m.def(
      "gpu_gemm",
      [](int gpu, const std::vector<std::string>& libraries, const std::string& precision,
         std::size_t size, double duration, std::size_t least, std::size_t most, std::uint64_t seed,
         double timeout) {
        const GemmSpec spec = gemm_spec(precision, size, seed, timing(duration, least, most));
        const GemmResult result = freely([&] {
          return measure_gemm(Gpu(gpu), cublaslt::Library::kept(libraries), spec,
                              Watch(nanos(timeout)));
        });
        return py::dict("supported"_a = result.supported, "library"_a = result.library,
                        "samples"_a = to_numpy(result.samples), "tried"_a = result.tried,
                        "transposed"_a = result.transposed);
      },
      py::kw_only(), "gpu"_a, "libraries"_a, "precision"_a, "size"_a, "duration"_a, "least"_a,
      "most"_a, "seed"_a, "timeout"_a);

  m.def(
      "gpu_compute",
      [](int gpu, const std::vector<std::string>& libraries, const std::string& precision,
         std::size_t size, double duration, std::size_t least, std::size_t most, std::uint64_t seed,
         double timeout) {
        const GemmSpec spec = gemm_spec(precision, size, seed, timing(duration, least, most));
        const ComputeResult result = freely([&] {
          return check_compute(Gpu(gpu), cublaslt::Library::kept(libraries), spec,
                               Watch(nanos(timeout)));
        });
        return py::dict("supported"_a = result.supported, "library"_a = result.library,
                        "products"_a = result.products, "sampled"_a = result.sampled,
                        "beyond"_a = result.beyond, "worst"_a = result.worst,
                        "wrong"_a = result.wrong, "row"_a = result.row, "column"_a = result.column,
                        "first"_a = result.first, "later"_a = result.later,
                        "exact"_a = result.exact);
      },
      py::kw_only(), "gpu"_a, "libraries"_a, "precision"_a, "size"_a, "duration"_a, "least"_a,
      "most"_a, "seed"_a, "timeout"_a);

  m.def(
      "gpu_memory",
      [](int gpu, double share, int passes, std::uint64_t seed, double timeout) {
        const MemoryResult result = freely(
            [&] { return check_memory(Gpu(gpu), {share, passes, seed}, Watch(nanos(timeout))); });
        return py::dict("bytes"_a = result.bytes, "passes"_a = result.passes,
                        "slowest"_a = result.slowest, "wrong"_a = result.wrong,
                        "first_bad"_a = result.first_bad, "expected"_a = result.expected,
                        "found"_a = result.found);
      },
      py::kw_only(), "gpu"_a, "share"_a, "passes"_a, "seed"_a, "timeout"_a);
}

}  // namespace cwai

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>

#include "bind/rooms.hpp"
#include "support/clock.hpp"
#include "support/crc32c.hpp"
#include "support/error.hpp"
#include "support/interfaces.hpp"
#include "support/progress.hpp"
#include "support/stop.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

// Raises ``_native.Error`` with the parts of the C++ error as attributes.
void raise(const py::handle& type, const Error& error) {
  py::object instance = type(error.what());
  instance.attr("fault") = std::string(fault_name(error.fault()));
  instance.attr("errno") = error.code();
  instance.attr("subject") = error.subject();
  instance.attr("vendor_code") = error.vendor_code();
  PyErr_SetObject(type.ptr(), instance.ptr());
}

}  // namespace

void register_support(py::module_& m) {
  static py::exception<Error> error_type(m, "Error");
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      raise(error_type, error);
    }
  });

  m.def("fault_names", &fault_names, "The names that Error.fault may have.");

  m.def("stop", &request_stop, "Ask every run of this process to end; callable from any thread.");
  m.def("clear_stop", &clear_stop, "Take stop() back.");
  m.def("stop_requested", &stop_requested, "Was stop() called?");

  m.def(
      "progress",
      [] {
        const ProgressView at = progress();
        return py::dict("phase"_a = phase_name(at.phase), "what"_a = at.what, "size"_a = at.size,
                        "iteration"_a = at.iteration);
      },
      "How far the present run has got.");

  m.def(
      "clock",
      [] {
        const ClockQuality quality = measure_clock();
        return py::dict("resolution"_a = seconds(quality.resolution),
                        "overhead"_a = quality.overhead / static_cast<double>(kSecond));
      },
      "Resolution and overhead of the clock, in seconds.");

  m.def(
      "crc32c",
      [](const py::bytes& data, std::uint32_t seed) {
        const std::string_view view = data;
        return crc32c(view.data(), view.size(), seed);
      },
      py::kw_only(), "data"_a, "seed"_a = 0, "CRC-32C of data, continuing from seed.");

  m.def(
      "interfaces",
      [] {
        py::list all;
        for (const InterfaceAddress& i : interface_addresses())
          all.append(py::dict("name"_a = i.name, "address"_a = i.address, "prefix"_a = i.prefix,
                              "v6"_a = i.v6, "up"_a = i.up, "loopback"_a = i.loopback));
        return all;
      },
      "Every address of every network interface.");
}

}  // namespace cwai

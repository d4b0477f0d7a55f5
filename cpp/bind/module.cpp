// The compiled module. Numbers and strings go in, numpy arrays and plain counters come out; only
// cwai_bench/native calls it.
#include <pybind11/pybind11.h>

#include "bind/rooms.hpp"

PYBIND11_MODULE(_native, m) {
  m.attr("__version__") = CWAI_VERSION;
  cwai::register_support(m);
  cwai::register_transport(m);
  cwai::register_collective(m);
  cwai::register_device(m);
  cwai::register_multipath(m);
}

// The compiled module: one function per room registers what Python may call.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_native, m) { m.attr("__version__") = CWAI_VERSION; }

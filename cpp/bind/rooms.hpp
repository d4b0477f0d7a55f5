// One function per room; each registers what Python may call.
#pragma once

#include <pybind11/pybind11.h>

namespace cwai {

void register_support(pybind11::module_& m);
void register_transport(pybind11::module_& m);
void register_collective(pybind11::module_& m);
void register_device(pybind11::module_& m);
void register_multipath(pybind11::module_& m);

}  // namespace cwai

// The memory of arrays as NumPy takes it: a handler (NEP 49), set for the calling thread's context.
#define FILLS_NUMPY_TABLE
#include "engine.h"

#include <nanobind/stl/pair.h>

#include "memory.h"

namespace {

void* handle_malloc(void*, size_t bytes) { return take_memory(bytes, false); }
void* handle_calloc(void*, size_t count, size_t each) {
    size_t bytes;
    return __builtin_mul_overflow(count, each, &bytes) ? nullptr : take_memory(bytes, true);
}
void* handle_realloc(void*, void* data, size_t bytes) { return resize_memory(data, bytes); }
void handle_free(void*, void* data, size_t) { release_memory(data); }

PyDataMem_Handler handler = {
    "private_keras", 1, {nullptr, handle_malloc, handle_calloc, handle_realloc, handle_free},
};

void use_memory() {
    // Never freed: arrays refer to it.
    static PyObject* capsule = PyCapsule_New(&handler, "mem_handler", nullptr);
    PyObject* before = capsule ? PyDataMem_SetHandler(capsule) : nullptr;
    if (!before) throw nb::python_error();
    Py_DECREF(before);
}

}  // namespace

void bind_memory(nb::module_& module) {
    if (_import_array() < 0) throw nb::python_error();
    module.def("use_memory", &use_memory);
    module.def("tend_memory", &tend_memory);
    module.def("memory_held", [] {
        MemoryHeld held = memory_held();
        return std::make_pair(held.used, held.kept);
    });
}

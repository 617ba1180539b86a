// Arrays of ring elements as the engine's methods take them, read from NumPy's own structures: the general protocols for
// arrays (DLPack, buffers) take longer than a small step.
#pragma once
// The table of NumPy's functions is filled in once, in module_memory.cpp.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL private_keras_ring_numpy
#ifndef FILLS_NUMPY_TABLE
#define NO_IMPORT_ARRAY
#endif
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <stdexcept>

#include "words.h"

// Becomes a subclass of private_keras.errors.KernelError.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// An array of uint64, whatever its strides. What is none is refused where it is first looked at.
class Strided {
  public:
    Strided() = default;
    explicit Strided(nanobind::handle from) { take(from); }
    size_t ndim() const { return size_t(PyArray_NDIM(checked())); }
    size_t shape(size_t axis) const { return size_t(PyArray_DIM(checked(), int(axis))); }
    ptrdiff_t stride(size_t axis) const { return PyArray_STRIDE(checked(), int(axis)) / ptrdiff_t(sizeof(u64)); }
    size_t size() const { return size_t(PyArray_SIZE(checked())); }
    const u64* data() const { return static_cast<const u64*>(PyArray_DATA(checked())); }

  protected:
    static bool words(nanobind::handle from) {
        return PyArray_Check(from.ptr()) && PyArray_TYPE(reinterpret_cast<PyArrayObject*>(from.ptr())) == NPY_UINT64 &&
               PyArray_ISNOTSWAPPED(reinterpret_cast<PyArrayObject*>(from.ptr()));
    }
    static bool whole_words(PyArrayObject* array) {
        if (!PyArray_ISALIGNED(array)) return false;
        for (int axis = 0; axis < PyArray_NDIM(array); axis++)
            if (PyArray_STRIDE(array, axis) % ptrdiff_t(sizeof(u64))) return false;
        return true;
    }
    PyArrayObject* checked() const {
        if (!array.is_valid()) throw Refused(reason);
        return reinterpret_cast<PyArrayObject*>(array.ptr());
    }
    void copy(nanobind::handle from) {
        array = nanobind::steal(PyArray_NewCopy(reinterpret_cast<PyArrayObject*>(from.ptr()), NPY_CORDER));
        if (!array.is_valid()) throw nanobind::python_error();
    }

    nanobind::object array;
    const char* reason = "Expected uint64 arrays of ring elements";

  private:
    void take(nanobind::handle from) {
        if (!words(from)) return;
        if (whole_words(reinterpret_cast<PyArrayObject*>(from.ptr()))) array = nanobind::borrow(from);
        else copy(from);
    }
};

// The same as one run of words; a copy only where it has to be.
class In : public Strided {
  public:
    In() = default;
    explicit In(nanobind::handle from) {
        if (!words(from)) return;
        if (PyArray_ISCARRAY_RO(reinterpret_cast<PyArrayObject*>(from.ptr()))) array = nanobind::borrow(from);
        else copy(from);
    }
};

// One run of words to be written.
class Out : public Strided {
  public:
    Out() { reason = "Expected a contiguous, writable uint64 array"; }
    explicit Out(nanobind::handle from) : Out() {
        if (words(from) && PyArray_ISCARRAY(reinterpret_cast<PyArrayObject*>(from.ptr()))) array = nanobind::borrow(from);
    }
    u64* data() const { return static_cast<u64*>(PyArray_DATA(checked())); }
};

namespace nanobind::detail {

template <class Array>
struct array_caster {
    NB_TYPE_CASTER(Array, const_name("numpy.ndarray"))
    bool from_python(handle from, uint8_t, cleanup_list*) noexcept {
        try {
            value = Array(from);
        } catch (python_error&) {
            PyErr_Clear();  // no memory for a copy
            return false;
        }
        return true;
    }
};
template <> struct type_caster<Strided> : array_caster<Strided> {};
template <> struct type_caster<In> : array_caster<In> {};
template <> struct type_caster<Out> : array_caster<Out> {};

}  // namespace nanobind::detail

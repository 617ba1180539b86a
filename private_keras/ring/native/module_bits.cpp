// Bit planes and steps on plain words as methods of the engine.
#include "engine.h"

namespace {

void expect_slice(int bits, int shift) {
    expect(bits >= 1 && shift >= 0 && bits <= 64 && shift <= 64 - bits, "bits of a 64-bit word expected");
}

void to_planes(const Engine& engine, const In& x, int bits, int shift, const Out& out) {
    size_t n = x.size();
    expect_slice(bits, shift);
    expect_words(out, size_t(bits) * plane_words(n), "planes");
    const u64* from = x.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.to_planes(from, n, bits, shift, to, first, last);
    });
}

void from_planes(const Engine& engine, const In& planes, int bits, int shift, const Out& out) {
    size_t n = out.size();
    expect_slice(bits, shift);
    expect_words(planes, size_t(bits) * plane_words(n), "planes");
    const u64* from = planes.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.from_planes(from, n, bits, shift, to, first, last);
    });
}

void multiply_shift(const Engine& engine, const In& x, u64 factor, int bits, const Out& out) {
    expect(1 <= bits && bits <= 63, "a shift by 1 .. 63 bits expected");
    size_t n = x.size();
    expect_words(out, n, "products");
    const u64* from = x.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    parallel(engine.threads, n, 65536, [&](size_t first, size_t last) {
        engine.table.multiply_shift(from + first, last - first, factor, bits, to + first);
    });
}

}  // namespace

void bind_bits(nb::class_<Engine>& engine) {
    engine.def("to_planes", &to_planes, nb::arg("x"), nb::arg("bits"), nb::arg("shift"), nb::arg("out"));
    engine.def("from_planes", &from_planes, nb::arg("planes"), nb::arg("bits"), nb::arg("shift"), nb::arg("out"));
    engine.def("multiply_shift", &multiply_shift, nb::arg("x"), nb::arg("factor"), nb::arg("bits"), nb::arg("out"));
}

// The Python module: kernels by name, matrix products, convolutions and the generator. Bit steps: module_bits.cpp; memory:
// module_memory.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "engine.h"

namespace {

constexpr size_t MAX_AXES = 32;

// What twice is taken from an array, or nothing; it lies as the array does.
const u64* lying_like(const std::optional<Strided>& less, const Strided& array) {
    if (!less) return nullptr;
    expect(less->ndim() == array.ndim(), "an operand's two arrays need the same axes");
    for (size_t i = 0; i < array.ndim(); i++)
        expect(less->shape(i) == array.shape(i) && (less->shape(i) < 2 || less->stride(i) == array.stride(i)),
               "an operand's two arrays need the same shape and strides");
    return less->data();
}

// A batch of matrices: the last two axes are the matrix, the others are walked like an odometer.
struct Batch {
    const u64 *data, *less;
    size_t axes;
    int64_t shape[MAX_AXES], stride[MAX_AXES];
    ptrdiff_t row, column;

    Batch(const Strided& array, const std::optional<Strided>& twice)
        : data(array.data()), less(lying_like(twice, array)), axes(array.ndim() - 2) {
        expect(array.ndim() <= MAX_AXES, "matmul: too many axes");
        for (size_t i = 0; i < axes; i++) {
            shape[i] = int64_t(array.shape(i));
            stride[i] = array.stride(i);
        }
        row = array.stride(axes);
        column = array.stride(axes + 1);
    }
    Matrix at(size_t index) const {
        ptrdiff_t offset = 0;
        for (size_t i = axes; i-- > 0;) {
            offset += ptrdiff_t(index % size_t(shape[i])) * stride[i];
            index /= size_t(shape[i]);
        }
        return {data + offset, row, column, less ? less + offset : nullptr};
    }
};

Matrix part_of(const Matrix& a, ptrdiff_t offset) {
    return {a.data + offset, a.row, a.column, a.less ? a.less + offset : nullptr};
}

Into into(int sign) {
    expect(-1 <= sign && sign <= 1, "expected a sign of -1, 0 or 1");
    return sign == 0 ? Into::set : sign > 0 ? Into::add : Into::subtract;
}

// `sign`: 1 adds the product to c, -1 subtracts it, 0 stores it. With `a_less`, the first factor is a - 2 a_less, and so
// for b. The same for convolutions.
void matmul(const Engine& engine, const Strided& a, const Strided& b, const Out& c, int sign,
            const std::optional<Strided>& a_less, const std::optional<Strided>& b_less) {
    Into how = into(sign);
    size_t axes = c.ndim();
    expect(axes >= 2 && a.ndim() == axes && b.ndim() == axes, "matmul: a, b and the result need the same axes");
    size_t m = c.shape(axes - 2), n = c.shape(axes - 1), k = a.shape(axes - 1), batch = 1;
    expect(a.shape(axes - 2) == m && b.shape(axes - 2) == k && b.shape(axes - 1) == n, "matmul: shapes do not fit");
    for (size_t i = 0; i + 2 < axes; i++) {
        expect(a.shape(i) == c.shape(i) && b.shape(i) == c.shape(i), "matmul: leading axes do not fit");
        batch *= c.shape(i);
    }
    if (c.size() == 0) return;
    Batch left(a, a_less), right(b, b_less);
    u64* to = c.data();
    nb::gil_scoped_release release;
    const Table& table = engine.table;
    // Less than a million products take less time than a thread needs to start.
    double work = double(batch) * double(m) * double(n) * double(k);
    int threads = work < 1e6 ? 1 : engine.threads;
    if (batch >= size_t(threads)) {
        parallel(threads, batch, 1, [&](size_t first, size_t last) {
            for (size_t i = first; i < last; i++)
                table.matmul(m, n, k, left.at(i), right.at(i), to + i * m * n, ptrdiff_t(n), how);
        });
        return;
    }
    for (size_t i = 0; i < batch; i++) {
        Matrix x = left.at(i), y = right.at(i);
        u64* z = to + i * m * n;
        if (m >= n)
            parallel(threads, m, 4 * table.tile_rows, [&](size_t first, size_t last) {
                table.matmul(last - first, n, k, part_of(x, ptrdiff_t(first) * x.row), y, z + first * n, ptrdiff_t(n), how);
            });
        else
            parallel(threads, n, 4 * table.tile_columns, [&](size_t first, size_t last) {
                table.matmul(m, last - first, k, x, part_of(y, ptrdiff_t(first) * y.column), z + first, ptrdiff_t(n), how);
            });
    }
}

// All lists have three entries; shorter convolutions come with leading axes of one.
void conv(const Engine& engine, const Strided& x, const In& w, const std::vector<int64_t>& stride,
          const std::vector<int64_t>& pad, const std::vector<int64_t>& dilation, size_t groups, const Out& y, int sign,
          const std::optional<Strided>& x_less, const std::optional<In>& w_less) {
    constexpr int64_t LIMIT = int64_t(1) << 31;
    expect(x.ndim() == 5 && w.ndim() == 5 && y.ndim() == 5, "conv: five axes expected");
    expect(stride.size() == 3 && pad.size() == 3 && dilation.size() == 3, "conv: three space axes expected");
    Convolution s;
    s.how = into(sign);
    for (size_t i = 0; i < 3; i++) {
        expect(1 <= stride[i] && stride[i] < LIMIT && 1 <= dilation[i] && dilation[i] < LIMIT && 0 <= pad[i] &&
                   pad[i] < LIMIT, "conv: strides and dilation must be positive, padding not negative");
        expect(x.shape(i + 1) < size_t(LIMIT) && w.shape(i) < size_t(LIMIT) && y.shape(i + 1) < size_t(LIMIT),
               "conv: an axis is too long");
        s.space[i] = ptrdiff_t(x.shape(i + 1));
        s.window[i] = ptrdiff_t(w.shape(i));
        s.out[i] = ptrdiff_t(y.shape(i + 1));
        s.x_space[i] = x.stride(i + 1);
        s.stride[i] = stride[i];
        s.pad[i] = pad[i];
        s.dilation[i] = dilation[i];
    }
    s.batch = x.shape(0);
    s.channels = x.shape(4);
    s.filters = w.shape(4);
    s.groups = groups;
    expect(groups >= 1 && s.filters % groups == 0 && s.channels % groups == 0 && w.shape(3) == s.channels / groups,
           "conv: channels, filters and groups do not fit");
    expect(y.shape(0) == s.batch && y.shape(4) == s.filters, "conv: result does not fit");
    s.x = x.data();
    s.x_batch = x.stride(0);
    s.x_channel = x.stride(4);
    s.w = w.data();
    s.x_less = lying_like(x_less, x);
    if (w_less) expect(w_less->size() == w.size(), "conv: an operand's two arrays need the same size");
    s.w_less = w_less ? w_less->data() : nullptr;
    s.y = y.data();
    if (y.size() == 0) return;
    nb::gil_scoped_release release;
    size_t pixels = y.size() / s.filters;
    double work = double(y.size()) * double(w.size()) / double(s.filters);
    parallel(work < 1e6 ? 1 : engine.threads, pixels, 4 * engine.table.tile_rows,
             [&](size_t first, size_t last) { engine.table.conv(s, first, last); });
}

void random_words(const Engine& engine, nb::bytes key, u64 nonce, u64 first, const Out& out) {
    expect(engine.generator, "this processor has no AES instructions");
    expect(key.size() == 16, "AES-128 needs a key of 16 bytes");
    Schedule schedule;
    engine.expand(reinterpret_cast<const u8*>(key.c_str()), schedule);
    u64* to = out.data();
    size_t n = out.size();
    nb::gil_scoped_release release;
    engine.generator(schedule, nonce, first, n, to);
}

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const Table* table : available_tables()) names.push_back(table->name);
    return names;
}

std::vector<std::string> generator_names() {
    std::vector<std::string> names;
    for (const NamedGenerator& generator : available_generators()) names.push_back(generator.name);
    return names;
}

// Empty names: the best there is. Generator "openssl": none of ours.
Engine* make_engine(const std::string& isa, const std::string& generator, int threads) {
    expect(1 <= threads && threads <= 1024, "threads must be 1 .. 1024");
    const Table* table = nullptr;
    for (const Table* candidate : available_tables())
        if (!table && (isa.empty() || isa == candidate->name)) table = candidate;
    if (!table) throw Refused("this machine has no instruction set named " + isa);
    NamedGenerator chosen{"openssl", nullptr, nullptr};
    for (const NamedGenerator& candidate : available_generators())
        if (!chosen.run && (generator.empty() || generator == candidate.name)) chosen = candidate;
    if (!generator.empty() && generator != chosen.name) throw Refused("this machine has no generator named " + generator);
    return new Engine{*table, chosen.run, chosen.expand, chosen.name, threads};
}

}  // namespace

NB_MODULE(_native, module) {
    // Kernels are often still held when the interpreter ends; the report would only alarm users.
    nb::set_leak_warnings(false);
    // The base class is ours, so that callers catch one exception whichever side found the mistake.
    nb::exception<Refused>(module, "Refused", nb::module_::import_("private_keras.errors").attr("KernelError"));
    module.def("isa_names", &isa_names);
    module.def("generator_names", &generator_names);
    nb::class_<Engine> engine(module, "Engine");
    engine.def(nb::new_(&make_engine), nb::arg("isa"), nb::arg("generator"), nb::arg("threads"));
    engine.def_prop_ro("isa", [](const Engine& self) { return std::string(self.table.name); });
    engine.def_prop_ro("generator", [](const Engine& self) { return self.generator_name; });
    engine.def_ro("threads", &Engine::threads);
    engine.def("matmul", &matmul, nb::arg("a"), nb::arg("b"), nb::arg("out"), nb::arg("sign"),
               nb::arg("a_less") = nb::none(), nb::arg("b_less") = nb::none());
    engine.def("conv", &conv, nb::arg("x"), nb::arg("w"), nb::arg("strides"), nb::arg("padding"), nb::arg("dilation"),
               nb::arg("groups"), nb::arg("out"), nb::arg("sign"), nb::arg("x_less") = nb::none(),
               nb::arg("w_less") = nb::none());
    engine.def("random", &random_words, nb::arg("key"), nb::arg("nonce"), nb::arg("first_block"), nb::arg("out"));
    bind_bits(engine);
    bind_memory(module);
    bind_comparison(engine);
    bind_steps(engine);
    bind_functions(engine);
}

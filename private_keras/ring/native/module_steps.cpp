// Steps of the protocol on ring elements as methods of the engine, one call each.
#include "engine.h"

Words::Words(const Engine& engine, nb::handle from) {
    if (!PyTuple_Check(from.ptr())) {
        array = In(from);
        source.words = array.data();
        size = array.size();
        return;
    }
    expect(PyTuple_GET_SIZE(from.ptr()) == 4, "a stream is (key, nonce, first word, number of words)");
    expect(engine.generator, "this processor has no AES instructions");
    nb::bytes key = nb::cast<nb::bytes>(from[0]);
    expect(key.size() == 16, "AES-128 needs a key of 16 bytes");
    engine.expand(reinterpret_cast<const u8*>(key.c_str()), schedule);
    size = nb::cast<size_t>(from[3]);
    source = {nullptr, engine.generator, &schedule, nb::cast<u64>(from[1]), nb::cast<u64>(from[2])};
}

namespace {

template <class Work>
void run(const Engine& engine, size_t n, const Work& work) {
    nb::gil_scoped_release release;
    engine.over_blocks(n, work);
}

// The dealt words of `words` full words and `carries` shares of a bit mod 2^bits: see upper_words.
size_t dealt_words(size_t n, size_t words, size_t carries, int bits, int party) {
    return n * words + carries * (party == 0 ? n : plane_words(n) * size_t(bits));
}

Rescaling rescaling(u64 factor, bool negative, int bits, int party) {
    expect(1 <= bits && bits <= 62, "division by 2^1 .. 2^62 expected");
    expect(factor < u64(1) << 63, "a factor below 2^63 expected");
    expect_party(party);
    return {factor, negative, bits, party};
}

void add_words(const Engine& engine, nb::handle x, nb::handle y, bool add, const Out& out) {
    Words a(engine, x), b(engine, y);
    expect_words(a, out.size(), "words");
    expect_words(b, out.size(), "words");
    u64* to = out.data();
    size_t n = out.size();
    run(engine, n, [&](size_t first, size_t last) {
        (add ? engine.table.add_words : engine.table.subtract_words)(a.source, b.source, n, to, first, last);
    });
}

void mask(const Engine& engine, const In& z, nb::handle words, const Out& own, const Out& message) {
    Words fresh(engine, words);
    size_t n = z.size();
    expect_words(fresh, n, "masks");
    expect_words(own, n, "own masks");
    expect_words(message, n, "message");
    const u64* from = z.data();
    u64 *kept = own.data(), *to = message.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.mask(from, n, fresh.source, kept, to, first, last);
    });
}

void multiply(const Engine& engine, const In& mx, const In& lx, const In& my, const In& ly, nb::handle dealt, int party,
              const Out& out) {
    Words g(engine, dealt);
    size_t n = out.size();
    expect_party(party);
    for (const In* array : {&mx, &lx, &my, &ly}) expect_words(*array, n, "factor");
    expect_words(g, n, "dealt words");
    Masked x{mx.data(), lx.data()}, y{my.data(), ly.data()};
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.multiply(x, y, n, g.source, party, to, first, last);
    });
}

void multiply_deal(const Engine& engine, const In& x, const In& y, nb::handle share0, const Out& out) {
    Words g(engine, share0);
    size_t n = out.size();
    for (const In* array : {&x, &y}) expect_words(*array, n, "mask");
    expect_words(g, n, "share of the product");
    const u64 *a = x.data(), *b = y.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) { engine.table.multiply_deal(a, b, n, g.source, to, first, last); });
}

void rescale(const Engine& engine, const In& m, nb::handle dealt, u64 factor, bool negative, int bits, int party,
             const Out& out) {
    Words words(engine, dealt);
    size_t n = m.size();
    Rescaling how = rescaling(factor, negative, bits, party);
    expect_words(words, dealt_words(n, 1, 1, bits, party), "dealt words");
    expect_words(out, n, "result");
    const u64* from = m.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.rescale(from, n, words.source, how, to, first, last);
    });
}

void rescale_deal(const Engine& engine, const In& r, nb::handle share0, u64 factor, int bits, const Out& out) {
    Words words(engine, share0);
    size_t n = r.size();
    Rescaling how = rescaling(factor, false, bits, 0);
    expect_words(words, 2 * n, "share of the dealt words");
    expect_words(out, dealt_words(n, 1, 1, bits, 1), "message");
    const u64* from = r.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.rescale_deal(from, n, words.source, how, to, first, last);
    });
}

void gate(const Engine& engine, const In& plane, const In& m, const In& l, nb::handle lam, nb::handle lam_l, int party,
          const Out& out) {
    Words bit(engine, lam), product(engine, lam_l);
    size_t n = out.size();
    expect_party(party);
    expect_words(plane, plane_words(n), "plane");
    expect_words(m, n, "masked words");
    expect_words(l, n, "masks");
    expect_words(bit, n, "dealt bits");
    expect_words(product, n, "dealt products");
    const u64* hat = plane.data();
    Masked x{m.data(), l.data()};
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.gate(hat, x, n, bit.source, product.source, party, to, first, last);
    });
}

void gate_deal(const Engine& engine, const In& plane, const In& r, nb::handle lam0, nb::handle lam_l0, const Out& bits,
               const Out& products) {
    Words bit(engine, lam0), product(engine, lam_l0);
    size_t n = r.size();
    expect_words(plane, plane_words(n), "plane");
    expect_words(bit, n, "share of the bits");
    expect_words(product, n, "share of the products");
    expect_words(bits, n, "bits");
    expect_words(products, n, "products");
    const u64 *lam = plane.data(), *from = r.data();
    u64 *to = bits.data(), *then = products.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.gate_deal(lam, from, n, bit.source, product.source, to, then, first, last);
    });
}

void gate_rescaled(const Engine& engine, const In& plane, const In& m, nb::handle dealt, int bits, int party,
                   const Out& out) {
    Words words(engine, dealt);
    size_t n = out.size();
    Rescaling how = rescaling(1, false, bits, party);
    expect_words(plane, plane_words(n), "plane");
    expect_words(m, n, "masked words");
    expect_words(words, dealt_words(n, 3, 2, bits, party), "dealt words");
    const u64 *hat = plane.data(), *from = m.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.gate_rescaled(hat, from, n, words.source, how, to, first, last);
    });
}

void gate_rescaled_deal(const Engine& engine, const In& plane, const In& r, nb::handle share0, int bits, const Out& out) {
    Words words(engine, share0);
    size_t n = r.size();
    rescaling(1, false, bits, 0);
    expect_words(plane, plane_words(n), "plane");
    expect_words(words, 5 * n, "share of the dealt words");
    expect_words(out, dealt_words(n, 3, 2, bits, 1), "message");
    const u64 *lam = plane.data(), *from = r.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.gate_rescaled_deal(lam, from, n, words.source, bits, to, first, last);
    });
}

void bit_share(const Engine& engine, const In& plane, nb::handle dealt, int party, const Out& out) {
    Words lam(engine, dealt);
    size_t n = out.size();
    expect_party(party);
    expect_words(plane, plane_words(n), "plane");
    expect_words(lam, n, "dealt bits");
    const u64* hat = plane.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) {
        engine.table.bit_share(hat, n, lam.source, party, to, first, last);
    });
}

void bit_deal(const Engine& engine, const In& plane, nb::handle share0, const Out& out) {
    Words share(engine, share0);
    size_t n = out.size();
    expect_words(plane, plane_words(n), "plane");
    expect_words(share, n, "share of the bits");
    const u64* lam = plane.data();
    u64* to = out.data();
    run(engine, n, [&](size_t first, size_t last) { engine.table.bit_deal(lam, n, share.source, to, first, last); });
}

}  // namespace

void bind_steps(nb::class_<Engine>& engine) {
    engine.def("add_words", &add_words, nb::arg("x"), nb::arg("y"), nb::arg("add"), nb::arg("out"));
    engine.def("mask", &mask, nb::arg("z"), nb::arg("words"), nb::arg("own"), nb::arg("message"));
    engine.def("multiply", &multiply, nb::arg("mx"), nb::arg("lx"), nb::arg("my"), nb::arg("ly"), nb::arg("dealt"),
               nb::arg("party"), nb::arg("out"));
    engine.def("multiply_deal", &multiply_deal, nb::arg("x"), nb::arg("y"), nb::arg("share0"), nb::arg("out"));
    engine.def("rescale", &rescale, nb::arg("m"), nb::arg("dealt"), nb::arg("factor"), nb::arg("negative"), nb::arg("bits"),
               nb::arg("party"), nb::arg("out"));
    engine.def("rescale_deal", &rescale_deal, nb::arg("r"), nb::arg("share0"), nb::arg("factor"), nb::arg("bits"),
               nb::arg("out"));
    engine.def("gate", &gate, nb::arg("plane"), nb::arg("m"), nb::arg("l"), nb::arg("lam"), nb::arg("lam_l"), nb::arg("party"),
               nb::arg("out"));
    engine.def("gate_deal", &gate_deal, nb::arg("plane"), nb::arg("r"), nb::arg("lam0"), nb::arg("lam_l0"), nb::arg("bits"),
               nb::arg("products"));
    engine.def("gate_rescaled", &gate_rescaled, nb::arg("plane"), nb::arg("m"), nb::arg("dealt"), nb::arg("bits"),
               nb::arg("party"), nb::arg("out"));
    engine.def("gate_rescaled_deal", &gate_rescaled_deal, nb::arg("plane"), nb::arg("r"), nb::arg("share0"), nb::arg("bits"),
               nb::arg("out"));
    engine.def("bit_share", &bit_share, nb::arg("plane"), nb::arg("dealt"), nb::arg("party"), nb::arg("out"));
    engine.def("bit_deal", &bit_deal, nb::arg("plane"), nb::arg("share0"), nb::arg("out"));
}

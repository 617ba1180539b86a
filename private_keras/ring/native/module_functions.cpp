// Ends of functions as methods of the engine: pieces of polynomials, powers of two.
#include "engine.h"

namespace {

Pieces pieces_of(const In& rows, const In& bits, size_t n) {
    expect(rows.ndim() == 2 && rows.shape(0) >= 1 && (rows.shape(1) == 2 || rows.shape(1) == 3),
           "rows of two or three coefficients expected");
    expect_words(bits, (rows.shape(0) - 1) * plane_words(n), "planes");
    return {rows.data(), rows.shape(0), int(rows.shape(1)), bits.data()};
}

size_t dealt_words(const Pieces& pieces, size_t n) {
    return n * ((pieces.terms == 3) + size_t(pieces.terms) * (pieces.count - 1));
}

void piecewise(const Engine& engine, const In& m, const In& l, const In& bits, const In& rows, nb::handle dealt, int party,
               const Out& out) {
    Words words(engine, dealt);
    size_t n = out.size();
    Pieces pieces = pieces_of(rows, bits, n);
    expect_party(party);
    expect_words(m, n, "masked words");
    expect_words(l, n, "masks");
    expect_words(words, dealt_words(pieces, n), "dealt words");
    Masked x{m.data(), l.data()};
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.piecewise(x, n, pieces, words.source, party, to, first, last);
    });
}

void piecewise_deal(const Engine& engine, const In& r, const In& bits, const In& rows, nb::handle share0, const Out& out) {
    Words words(engine, share0);
    size_t n = r.size();
    Pieces pieces = pieces_of(rows, bits, n);
    expect_words(words, dealt_words(pieces, n), "share of the dealt words");
    expect_words(out, dealt_words(pieces, n), "message");
    const u64* from = r.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.piecewise_deal(from, n, pieces, words.source, to, first, last);
    });
}

Exp2 powers(const In& coarse, const In& fine, int table_fraction, int fraction, int shift) {
    expect(0 <= fraction && fraction <= table_fraction && table_fraction <= 40 && table_fraction % 2 == 0,
           "fraction does not fit the tables");
    expect_words(coarse, size_t(1) << (table_fraction / 2), "coarse table");
    expect_words(fine, size_t(1) << (table_fraction / 2), "fine table");
    return {coarse.data(), fine.data(), fraction, table_fraction, shift};
}

void exp2_public(const Engine& engine, const In& c, const In& coarse, const In& fine, int table_fraction, int fraction,
                 int shift, const Out& out) {
    Exp2 how = powers(coarse, fine, table_fraction, fraction, shift);
    size_t n = c.size();
    expect_words(out, n, "powers");
    const u64* from = c.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    parallel(engine.threads, n, 65536, [&](size_t first, size_t last) {
        engine.table.exp2(from + first, last - first, how, to + first);
    });
}

void exp2_share(const Engine& engine, const In& plane, const In& m, nb::handle dealt, const In& coarse, const In& fine,
                int table_fraction, int fraction, int shift, int bits, int jump, const Out& out) {
    Exp2 how = powers(coarse, fine, table_fraction, fraction, shift);
    Words words(engine, dealt);
    size_t n = out.size();
    expect(1 <= bits && bits <= 62, "a power of 1 .. 62 bits expected");
    expect_words(plane, plane_words(n), "plane");
    expect_words(m, n, "masked words");
    expect_words(words, 2 * n, "dealt words");
    const u64 *hat = plane.data(), *from = m.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.exp2_share(hat, from, n, words.source, how, bits, jump, to, first, last);
    });
}

void exp2_deal(const Engine& engine, const In& plane, const In& r, nb::handle share0, const In& coarse, const In& fine,
               int table_fraction, int fraction, int shift, int bits, const Out& out) {
    Exp2 how = powers(coarse, fine, table_fraction, fraction, shift);
    Words words(engine, share0);
    size_t n = r.size();
    expect(1 <= bits && bits <= 62, "a power of 1 .. 62 bits expected");
    expect_words(plane, plane_words(n), "plane");
    expect_words(words, 2 * n, "share of the dealt words");
    expect_words(out, 2 * n, "message");
    const u64 *lam = plane.data(), *from = r.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.exp2_deal(lam, from, n, words.source, how, bits, to, first, last);
    });
}

}  // namespace

void bind_functions(nb::class_<Engine>& engine) {
    engine.def("piecewise", &piecewise, nb::arg("m"), nb::arg("l"), nb::arg("bits"), nb::arg("rows"), nb::arg("dealt"),
               nb::arg("party"), nb::arg("out"));
    engine.def("piecewise_deal", &piecewise_deal, nb::arg("r"), nb::arg("bits"), nb::arg("rows"), nb::arg("share0"), nb::arg("out"));
    engine.def("exp2_public", &exp2_public, nb::arg("c"), nb::arg("coarse"), nb::arg("fine"), nb::arg("table_fraction"),
               nb::arg("fraction"), nb::arg("shift"), nb::arg("out"));
    engine.def("exp2_share", &exp2_share, nb::arg("plane"), nb::arg("m"), nb::arg("dealt"), nb::arg("coarse"), nb::arg("fine"),
               nb::arg("table_fraction"), nb::arg("fraction"), nb::arg("shift"), nb::arg("bits"), nb::arg("jump"),
               nb::arg("out"));
    engine.def("exp2_deal", &exp2_deal, nb::arg("plane"), nb::arg("r"), nb::arg("share0"), nb::arg("coarse"), nb::arg("fine"),
               nb::arg("table_fraction"), nb::arg("fraction"), nb::arg("shift"), nb::arg("bits"), nb::arg("out"));
}

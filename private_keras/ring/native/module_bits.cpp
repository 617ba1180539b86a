// Bit steps as methods of the engine. Lengths follow from n and the width alone and are checked here.
#include "engine.h"

namespace {

void expect_slice(int bits, int shift) {
    expect(bits >= 1 && shift >= 0 && bits <= 64 && shift <= 64 - bits, "bits of a 64-bit word expected");
}

void expect_width(int width, int party) {
    expect(1 <= width && width <= MAX_WIDTH, "a comparison has 1 .. 62 bits");
    expect(party == 0 || party == 1, "an evaluator is party 0 or 1");
}

// n below 2^48, so that planes * words cannot wrap round and pass for the length of a short array.
Level level_at(int width, int number, size_t n) {
    expect_width(width, 0);
    expect(n <= size_t(1) << 48, "too many elements");
    expect(0 <= number && number < level_count(width), "no such level of the comparison tree");
    return level_of(width, number);
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

void digits_deal(const Engine& engine, const In& r, int width, const In& share, const Out& out) {
    size_t n = r.size();
    expect_width(width, 0);
    size_t words = size_t(digit_planes(width)) * plane_words(n);
    expect_words(share, words, "share of the digits");
    expect_words(out, words, "digits");
    const u64 *from = r.data(), *mask = share.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.digits_deal(from, n, width, mask, to, first, last);
    });
}

void digits_compare(const Engine& engine, const In& c, int width, const In& share, int party, const In& masks,
                    const Out& opened, const Out& kept) {
    size_t n = c.size(), words = plane_words(n);
    expect_width(width, party);
    Level next = level_of(width, 0);
    expect_words(share, size_t(digit_planes(width)) * words, "share of the digits");
    expect_words(masks, size_t(opened_planes(next)) * words, "masks");
    expect_words(opened, size_t(opened_planes(next)) * words, "opened wires");
    expect_words(kept, size_t(next.kept) * words, "kept wires");
    const u64 *from = c.data(), *hot = share.data(), *mask = masks.data();
    u64 *to = opened.data(), *keep = kept.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.digits_compare(from, n, width, hot, party, mask, to, keep, first, last);
    });
}

void tree_deal(const Engine& engine, const In& masks, int width, size_t n, int number, const In& share, const Out& out) {
    Level level = level_at(width, number, n);
    size_t words = plane_words(n);
    expect_words(masks, size_t(level.opened) * words, "masks");
    expect_words(share, size_t(level.products) * words, "share of the products");
    expect_words(out, size_t(level.products) * words, "products");
    const u64 *mask = masks.data(), *from = share.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.tree_deal(mask, n, level, from, to, first, last);
    });
}

void tree_combine(const Engine& engine, const In& opened, const In& kept, const In& products, const In& masks,
                  int width, size_t n, int number, int party, const In& next_masks, const Out& next_opened,
                  const Out& next_kept) {
    expect_width(width, party);
    Level level = level_at(width, number, n), next = level_of(width, number + 1);
    size_t words = plane_words(n);
    expect_words(opened, size_t(level.opened) * words, "opened wires");
    expect_words(kept, size_t(level.kept) * words, "kept wires");
    expect_words(products, size_t(level.products) * words, "products");
    expect_words(masks, size_t(level.opened) * words, "own masks");
    expect_words(next_masks, size_t(opened_planes(next)) * words, "next masks");
    expect_words(next_opened, size_t(opened_planes(next)) * words, "next opened wires");
    expect_words(next_kept, size_t(next.kept) * words, "next kept wires");
    const u64 *hat = opened.data(), *keep = kept.data(), *product = products.data(), *mask = masks.data();
    const u64* next_mask = next_masks.data();
    u64 *to = next_opened.data(), *next_keep = next_kept.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.tree_combine(hat, keep, product, mask, n, level, next, party, next_mask, to, next_keep, first, last);
    });
}

void select_words(const Engine& engine, const In& plane, const In& a, const In& b, const Out& out) {
    size_t n = out.size();
    expect_words(plane, plane_words(n), "plane");
    expect_words(a, n, "first choice");
    expect_words(b, n, "second choice");
    const u64 *bits = plane.data(), *x = a.data(), *y = b.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) { engine.table.select(bits, x, y, n, to, first, last); });
}

void exp2_public(const Engine& engine, const In& c, const In& coarse, const In& fine, int table_fraction, int fraction,
                 int shift, const Out& out) {
    expect(0 <= fraction && fraction <= table_fraction && table_fraction <= 40 && table_fraction % 2 == 0,
           "fraction does not fit the tables");
    expect_words(coarse, size_t(1) << (table_fraction / 2), "coarse table");
    expect_words(fine, size_t(1) << (table_fraction / 2), "fine table");
    expect_words(out, c.size(), "powers");
    Exp2 how{coarse.data(), fine.data(), fraction, table_fraction, shift};
    const u64* from = c.data();
    u64* to = out.data();
    size_t n = c.size();
    nb::gil_scoped_release release;
    parallel(engine.threads, n, 65536, [&](size_t first, size_t last) {
        engine.table.exp2(from + first, last - first, how, to + first);
    });
}

void truncate_public(const Engine& engine, const In& c, int bits, const Out& a, const Out& b) {
    expect(1 <= bits && bits <= 62, "truncation by 1 .. 62 bits expected");
    size_t n = c.size();
    expect_words(a, n, "truncated words");
    expect_words(b, n, "corrections");
    const u64* from = c.data();
    u64 *to = a.data(), *correction = b.data();
    nb::gil_scoped_release release;
    parallel(engine.threads, n, 65536, [&](size_t first, size_t last) {
        engine.table.truncate(from + first, last - first, bits, to + first, correction + first);
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
    auto as_is = [](const char* name) { return nb::arg(name).noconvert(); };
    engine.def("to_planes", &to_planes, as_is("x"), nb::arg("bits"), nb::arg("shift"), as_is("out"));
    engine.def("from_planes", &from_planes, as_is("planes"), nb::arg("bits"), nb::arg("shift"), as_is("out"));
    engine.def("digits_deal", &digits_deal, as_is("r"), nb::arg("width"), as_is("share"), as_is("out"));
    engine.def("digits_compare", &digits_compare, as_is("c"), nb::arg("width"), as_is("share"), nb::arg("party"),
               as_is("masks"), as_is("opened"), as_is("kept"));
    engine.def("tree_deal", &tree_deal, as_is("masks"), nb::arg("width"), nb::arg("n"), nb::arg("level"),
               as_is("share"), as_is("out"));
    engine.def("tree_combine", &tree_combine, as_is("opened"), as_is("kept"), as_is("products"), as_is("masks"),
               nb::arg("width"), nb::arg("n"), nb::arg("level"), nb::arg("party"), as_is("next_masks"),
               as_is("next_opened"), as_is("next_kept"));
    engine.def("select", &select_words, as_is("plane"), as_is("a"), as_is("b"), as_is("out"));
    engine.def("exp2_public", &exp2_public, as_is("c"), as_is("coarse"), as_is("fine"), nb::arg("table_fraction"),
               nb::arg("fraction"), nb::arg("shift"), as_is("out"));
    engine.def("truncate_public", &truncate_public, as_is("c"), nb::arg("bits"), as_is("a"), as_is("b"));
    engine.def("multiply_shift", &multiply_shift, as_is("x"), nb::arg("factor"), nb::arg("bits"), as_is("out"));
}

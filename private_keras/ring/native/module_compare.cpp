// The comparison as methods of the engine. Lengths follow from n, the width and the number of comparisons alone and are
// checked here.
#include "engine.h"

namespace {

void expect_width(int width, int party) {
    expect(1 <= width && width <= MAX_WIDTH, "a comparison has 1 .. 62 bits");
    expect_party(party);
}

void expect_low(int width, int low) {
    // One bit of a word is left, which `top` may add.
    expect(0 <= low && low <= 63 - width, "bits of a 64-bit word expected");
}

// n and count below 2^40, so that planes * words cannot wrap round and pass for the length of a short array.
const Level& level_at(int width, int number, size_t n, size_t count) {
    expect_width(width, 0);
    expect(n <= size_t(1) << 40 && 1 <= count && count <= size_t(1) << 10, "too many elements");
    expect(0 <= number && number < level_count(width), "no such level of the comparison tree");
    return level_of(width, number);
}

void digits_deal(const Engine& engine, const In& r, int width, int low, nb::handle share0, const Out& out) {
    size_t n = r.size();
    expect_width(width, 0);
    expect_low(width, low);
    size_t words = size_t(digit_planes(width)) * plane_words(n);
    Words share(engine, share0);
    expect_words(share, words, "share of the digits");
    expect_words(out, words, "digits");
    const u64* from = r.data();
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.digits_deal(from, n, width, low, share.source, to, first, last);
    });
}

void digits_compare(const Engine& engine, const In& m, const In& offsets, int width, int low, bool top, nb::handle digits,
                    int party, nb::handle masks, const Out& opened, const Out& kept) {
    size_t n = m.size(), count = offsets.size(), words = plane_words(n) * count;
    expect_width(width, party);
    expect_low(width, low);
    const Level& next = level_of(width, 0);
    Words share(engine, digits), fresh(engine, masks);
    expect_words(share, size_t(digit_planes(width)) * plane_words(n), "share of the digits");
    expect_words(fresh, size_t(opened_planes(next)) * words, "masks");
    expect_words(opened, size_t(opened_planes(next)) * words, "opened wires");
    expect_words(kept, size_t(next.kept) * words, "kept wires");
    Comparison how{width, low, count, party, top};
    const u64 *from = m.data(), *offset = offsets.data();
    u64 *to = opened.data(), *keep = kept.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.digits_compare(from, n, how, offset, share.source, fresh.source, to, keep, first, last);
    });
}

void tree_deal(const Engine& engine, nb::handle masks0, nb::handle masks1, int width, size_t n, int number, size_t count,
               nb::handle share0, const Out& out) {
    const Level& level = level_at(width, number, n, count);
    size_t words = plane_words(n) * count;
    Words half(engine, masks0), other(engine, masks1), share(engine, share0);
    expect_words(half, size_t(level.opened) * words, "masks");
    expect_words(other, size_t(level.opened) * words, "masks");
    expect_words(share, size_t(level.products) * words, "share of the products");
    expect_words(out, size_t(level.products) * words, "products");
    u64* to = out.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.tree_deal(half.source, other.source, n, count, level, share.source, to, first, last);
    });
}

void tree_combine(const Engine& engine, const In& mine, const In& theirs, const In& kept, nb::handle products,
                  nb::handle masks, int width, size_t n, int number, size_t count, int party, nb::handle next_masks,
                  const Out& next_opened, const Out& next_kept) {
    expect_width(width, party);
    const Level &level = level_at(width, number, n, count), &next = level_of(width, number + 1);
    size_t words = plane_words(n) * count;
    Words dealt(engine, products), own(engine, masks), fresh(engine, next_masks);
    expect_words(mine, size_t(level.opened) * words, "opened wires");
    expect_words(theirs, size_t(level.opened) * words, "opened wires");
    expect_words(kept, size_t(level.kept) * words, "kept wires");
    expect_words(dealt, size_t(level.products) * words, "products");
    expect_words(own, size_t(level.opened) * words, "own masks");
    expect_words(fresh, size_t(opened_planes(next)) * words, "next masks");
    expect_words(next_opened, size_t(opened_planes(next)) * words, "next opened wires");
    expect_words(next_kept, size_t(next.kept) * words, "next kept wires");
    Comparison how{width, 0, count, party, false};
    Opened opened{mine.data(), theirs.data()};
    const u64* keep = kept.data();
    u64 *to = next_opened.data(), *next_keep = next_kept.data();
    nb::gil_scoped_release release;
    engine.over_blocks(n, [&](size_t first, size_t last) {
        engine.table.tree_combine(opened, keep, dealt.source, own.source, n, how, level, next, fresh.source, to, next_keep,
                                  first, last);
    });
}

}  // namespace

void bind_comparison(nb::class_<Engine>& engine) {
    engine.def("digits_deal", &digits_deal, nb::arg("r"), nb::arg("width"), nb::arg("low"), nb::arg("share0"), nb::arg("out"));
    engine.def("digits_compare", &digits_compare, nb::arg("m"), nb::arg("offsets"), nb::arg("width"), nb::arg("low"),
               nb::arg("top"), nb::arg("digits"), nb::arg("party"), nb::arg("masks"), nb::arg("opened"), nb::arg("kept"));
    engine.def("tree_deal", &tree_deal, nb::arg("masks0"), nb::arg("masks1"), nb::arg("width"), nb::arg("n"),
               nb::arg("level"), nb::arg("count"), nb::arg("share0"), nb::arg("out"));
    engine.def("tree_combine", &tree_combine, nb::arg("mine"), nb::arg("theirs"), nb::arg("kept"), nb::arg("products"),
               nb::arg("masks"), nb::arg("width"), nb::arg("n"), nb::arg("level"), nb::arg("count"), nb::arg("party"),
               nb::arg("next_masks"), nb::arg("next_opened"), nb::arg("next_kept"));
}

// What one instruction set provides: a table of inner loops. Callers check every length before they call.
#pragma once
#include "aes.h"
#include "schedule.h"
#include "words.h"

// A matrix anywhere in memory; strides count words and may be zero or negative. With `less`, which lies as `data` does,
// words are data - 2 less.
struct Matrix {
    const u64* data;
    ptrdiff_t row, column;
    const u64* less = nullptr;
};

// What becomes of a product: it is stored, added to what is there, or subtracted from it.
enum class Into { set, add, subtract };

// A convolution over three space axes; shorter ones have leading axes of one.
struct Convolution {
    const u64* x;
    ptrdiff_t x_batch, x_space[3], x_channel;
    ptrdiff_t space[3], window[3], out[3], stride[3], pad[3], dilation[3];
    size_t batch, channels, filters, groups;
    const u64* w;  // (*window, channels / groups, filters), contiguous
    const u64 *x_less, *w_less;  // null, or what twice is taken from x or w, in the same order
    u64* y;        // (batch, *out, filters), contiguous
    Into how;
};

struct Exp2 {
    const u64 *coarse, *fine;
    int fraction, table_fraction, shift;
};

// A value as an evaluator holds it: m = x + l, and its own part of l.
struct Masked {
    const u64 *m, *l;
};

// Division of factor * z by 2^bits, of which evaluator `party` makes its share.
struct Rescaling {
    u64 factor;
    bool negative;
    int bits, party;
};

// `count` comparisons of the same elements with public words, in one message, of bits low .. low+width-1; `top`: the next
// bit is added to the result by party 0.
struct Comparison {
    int width, low;
    size_t count;
    int party;
    bool top;
};

// Polynomials of degree below `terms`, whose coefficients stand in rows, lowest first; a plane for each but the first.
struct Pieces {
    const u64* rows;
    size_t count;
    int terms;
    const u64* bits;
};

// Both evaluators' messages, whose XOR is what is opened.
struct Opened {
    const u64 *mine, *theirs;
};

struct Table {
    const char* name;
    // Rows and columns of one micro tile: how to cut work between threads.
    size_t tile_rows, tile_columns;

    // a[m, k] b[k, n] into c[m, n], whose rows are `c_row` words apart.
    void (*matmul)(size_t m, size_t n, size_t k, Matrix a, Matrix b, u64* c, ptrdiff_t c_row, Into how);
    // Output pixels first .. last-1 (over batch and space) of a convolution.
    void (*conv)(const Convolution& shape, size_t first, size_t last);

    // All of the following work on blocks first .. last-1 of n elements.
    void (*to_planes)(const u64* x, size_t n, int bits, int shift, u64* out, size_t first, size_t last);
    void (*from_planes)(const u64* planes, size_t n, int bits, int shift, u64* out, size_t first, size_t last);
    void (*digits_deal)(const u64* r, size_t n, int width, int low, const Source& share, u64* out, size_t first,
                        size_t last);
    void (*digits_compare)(const u64* m, size_t n, const Comparison& how, const u64* offsets, const Source& share,
                           const Source& masks, u64* opened, u64* kept, size_t first, size_t last);
    void (*tree_deal)(const Source& masks0, const Source& masks1, size_t n, size_t count, const Level& level,
                      const Source& share, u64* out, size_t first, size_t last);
    void (*tree_combine)(const Opened& opened, const u64* kept, const Source& products, const Source& masks, size_t n,
                         const Comparison& how, const Level& level, const Level& next, const Source& next_masks,
                         u64* next_opened, u64* next_kept, size_t first, size_t last);
    void (*add_words)(const Source& x, const Source& y, size_t n, u64* out, size_t first, size_t last);
    void (*subtract_words)(const Source& x, const Source& y, size_t n, u64* out, size_t first, size_t last);
    void (*mask)(const u64* z, size_t n, const Source& words, u64* own, u64* message, size_t first, size_t last);
    void (*multiply)(const Masked& x, const Masked& y, size_t n, const Source& dealt, int party, u64* out, size_t first,
                     size_t last);
    void (*multiply_deal)(const u64* x, const u64* y, size_t n, const Source& share0, u64* out, size_t first,
                          size_t last);
    void (*rescale)(const u64* m, size_t n, const Source& dealt, Rescaling how, u64* out, size_t first, size_t last);
    void (*rescale_deal)(const u64* r, size_t n, const Source& share0, Rescaling how, u64* out, size_t first,
                         size_t last);
    void (*gate)(const u64* plane, const Masked& x, size_t n, const Source& lam, const Source& lam_l, int party, u64* out,
                 size_t first, size_t last);
    void (*gate_deal)(const u64* plane, const u64* r, size_t n, const Source& lam0, const Source& lam_l0, u64* lam_out,
                      u64* lam_l_out, size_t first, size_t last);
    void (*gate_rescaled)(const u64* plane, const u64* m, size_t n, const Source& dealt, Rescaling how, u64* out,
                          size_t first, size_t last);
    void (*gate_rescaled_deal)(const u64* plane, const u64* r, size_t n, const Source& share0, int bits, u64* out,
                               size_t first, size_t last);
    void (*bit_share)(const u64* plane, size_t n, const Source& dealt, int party, u64* out, size_t first, size_t last);
    void (*bit_deal)(const u64* plane, size_t n, const Source& share0, u64* out, size_t first, size_t last);
    void (*piecewise)(const Masked& x, size_t n, const Pieces& pieces, const Source& dealt, int party, u64* out,
                      size_t first, size_t last);
    void (*piecewise_deal)(const u64* r, size_t n, const Pieces& pieces, const Source& share0, u64* out, size_t first,
                           size_t last);
    void (*exp2_share)(const u64* plane, const u64* m, size_t n, const Source& dealt, const Exp2& how, int bits, int jump,
                       u64* out, size_t first, size_t last);
    void (*exp2_deal)(const u64* plane, const u64* r, size_t n, const Source& share0, const Exp2& how, int bits, u64* out,
                      size_t first, size_t last);

    // Element by element, elements 0 .. n-1.
    void (*exp2)(const u64* c, size_t n, const Exp2& how, u64* out);
    void (*multiply_shift)(const u64* x, size_t n, u64 factor, int bits, u64* out);
};

const Table& portable_table();
const Table& avx2_table();
const Table& avx512_table();

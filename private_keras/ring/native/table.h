// What one instruction set provides: a table of inner loops. Callers check every length before they call.
#pragma once
#include "schedule.h"
#include "words.h"

// A matrix anywhere in memory; strides count words and may be zero or negative.
struct Matrix {
    const u64* data;
    ptrdiff_t row, column;
};

// A convolution over three space axes; shorter ones have leading axes of one.
struct Convolution {
    const u64* x;
    ptrdiff_t x_batch, x_space[3], x_channel;
    ptrdiff_t space[3], window[3], out[3], stride[3], pad[3], dilation[3];
    size_t batch, channels, filters, groups;
    const u64* w;  // (*window, channels / groups, filters), contiguous
    u64* y;        // (batch, *out, filters), contiguous
};

struct Exp2 {
    const u64 *coarse, *fine;
    int fraction, table_fraction, shift;
};

struct Table {
    const char* name;
    // Rows and columns of one micro tile: how to cut work between threads.
    size_t tile_rows, tile_columns;

    // c[m, n] = a[m, k] b[k, n], c with rows of `c_row` words.
    void (*matmul)(size_t m, size_t n, size_t k, Matrix a, Matrix b, u64* c, ptrdiff_t c_row);
    // Output pixels first .. last-1 (over batch and space) of a convolution.
    void (*conv)(const Convolution& shape, size_t first, size_t last);

    // All of the following work on blocks first .. last-1 of n elements.
    void (*to_planes)(const u64* x, size_t n, int bits, int shift, u64* out, size_t first, size_t last);
    void (*from_planes)(const u64* planes, size_t n, int bits, int shift, u64* out, size_t first, size_t last);
    void (*digits_deal)(const u64* r, size_t n, int width, const u64* share, u64* out, size_t first, size_t last);
    void (*digits_compare)(const u64* c, size_t n, int width, const u64* share, int party, const u64* masks,
                           u64* opened, u64* kept, size_t first, size_t last);
    void (*tree_deal)(const u64* masks, size_t n, const Level& level, const u64* share, u64* out, size_t first,
                      size_t last);
    void (*tree_combine)(const u64* opened, const u64* kept, const u64* products, const u64* masks, size_t n,
                         const Level& level, const Level& next, int party, const u64* next_masks, u64* next_opened,
                         u64* next_kept, size_t first, size_t last);
    void (*select)(const u64* plane, const u64* a, const u64* b, size_t n, u64* out, size_t first, size_t last);

    // Element by element, elements 0 .. n-1.
    void (*exp2)(const u64* c, size_t n, const Exp2& how, u64* out);
    void (*truncate)(const u64* c, size_t n, int bits, u64* a, u64* b);
    void (*multiply_shift)(const u64* x, size_t n, u64 factor, int bits, u64* out);
};

const Table& portable_table();
const Table& avx2_table();
const Table& avx512_table();

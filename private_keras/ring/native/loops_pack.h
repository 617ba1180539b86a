// Panels of matrices: what the micro tile reads in one run. Words made of two arrays are made here, in the same pass.

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

inline Matrix from(Matrix a, ptrdiff_t offset) { return {a.data + offset, a.row, a.column, a.less ? a.less + offset : nullptr}; }
inline Matrix turned(Matrix a) { return {a.data, a.column, a.row, a.less}; }

// A word, or a vector, of what a matrix stands for. TWO: the matrix has `less`.
template <bool TWO>
inline u64 word_at(const u64* data, const u64* less, ptrdiff_t at) {
    return TWO ? data[at] - 2 * less[at] : data[at];
}
template <bool TWO>
inline Words words_at(const u64* data, const u64* less, ptrdiff_t at) {
    Words words = load(data + at);
    if constexpr (TWO) {
        Words twice = load(less + at);
        words -= twice + twice;
    }
    return words;
}

// Rows of a tile, each contiguous: where they begin, and what twice is taken from them.
struct Lines {
    const u64 *data[TILE_ROWS], *less[TILE_ROWS];
};

#if ISA_LANES == 8
// Swaps rows and columns of 2 x 2 squares of so many words, across all vectors.
template <int STEP>
inline void swap_squares(Words* v) {
    // Of two vectors a and b STEP rows apart: a's words whose place has no STEP in it, and b's in between, and the rest.
    constexpr Words place = {0, 1, 2, 3, 4, 5, 6, 7}, odd = (place & STEP) / STEP;
    constexpr Words low = place + odd * (LANES - STEP), high = low + STEP;
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i++)
        if (!(i & STEP)) {
            Words a = v[i], b = v[i + STEP];
            v[i] = __builtin_shuffle(a, b, low);
            v[i + STEP] = __builtin_shuffle(a, b, high);
        }
}
#endif

// Words 0 .. k-1 of LANES lines, side by side: word q of line i into to[q * step + i].
template <bool TWO>
inline void interleave(const Lines& lines, size_t k, u64* to, size_t step) {
    size_t q = 0;
#if ISA_LANES == 8
    for (; q + LANES <= k; q += LANES) {
        Words v[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) v[i] = words_at<TWO>(lines.data[i], lines.less[i], ptrdiff_t(q));
        swap_squares<1>(v);
        swap_squares<2>(v);
        swap_squares<4>(v);
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) store(to + (q + size_t(i)) * step, v[i]);
    }
#endif
    for (; q < k; q++)
        for (int i = 0; i < LANES; i++) to[q * step + size_t(i)] = word_at<TWO>(lines.data[i], lines.less[i], ptrdiff_t(q));
}

// Whether a tile's rows fill a vector, so that whole vectors are written when its lines are interleaved.
constexpr bool LINES_FILL_VECTORS = TILE_ROWS == LANES;

// Rows of a matrix; `Patches` in loops_conv.h is the other kind.
struct PlainRows {
    Matrix a;
    // Interleaves rows first .. first+count-1, columns p .. p+k-1, with the constant stride TILE_ROWS.
    void pack(size_t first, int count, size_t p, size_t k, u64* to) const {
        Matrix part = from(a, ptrdiff_t(first) * a.row + ptrdiff_t(p) * a.column);
        if (a.less) pack_part<true>(part, count, k, to);
        else pack_part<false>(part, count, k, to);
    }

  private:
    template <bool TWO>
    static void pack_part(Matrix a, int count, size_t k, u64* to) {
        const u64 *data = a.data, *less = a.less;
        ptrdiff_t next = TWO ? a.column : 0;
        if (LINES_FILL_VECTORS && a.row == 1 && count == TILE_ROWS) {
            for (size_t q = 0; q < k; q++, data += a.column, less += next, to += TILE_ROWS) store(to, words_at<TWO>(data, less, 0));
        } else if (LINES_FILL_VECTORS && a.column == 1 && count == TILE_ROWS) {
            Lines lines;
            for (int i = 0; i < TILE_ROWS; i++) {
                lines.data[i] = data + i * a.row;
                lines.less[i] = TWO ? less + i * a.row : nullptr;
            }
            interleave<TWO>(lines, k, to, TILE_ROWS);
        } else if (count == TILE_ROWS) {
            for (size_t q = 0; q < k; q++, data += a.column, less += next, to += TILE_ROWS)
#pragma GCC unroll 8
                for (int i = 0; i < TILE_ROWS; i++) to[i] = word_at<TWO>(data, less, i * a.row);
        } else {
            for (size_t q = 0; q < k; q++, data += a.column, less += next, to += TILE_ROWS)
                for (int i = 0; i < count; i++) to[i] = word_at<TWO>(data, less, i * a.row);
        }
    }
};

inline int vectors_of(size_t columns) { return int((columns + LANES - 1) / LANES); }

// Panels of TILE_COLUMNS columns, each (k, width rounded up to vectors), zero where b has no column. Row by row where
// rows are contiguous: they come from memory in one run.
template <bool TWO>
void pack_columns(Matrix b, size_t k, size_t n, u64* to) {
    size_t whole = n / TILE_COLUMNS * TILE_COLUMNS, width = n - whole, padded = size_t(vectors_of(width)) * LANES;
    if (b.column == 1) {
        for (size_t p = 0; p < k; p++) {
            const u64 *data = b.data + ptrdiff_t(p) * b.row, *less = TWO ? b.less + ptrdiff_t(p) * b.row : nullptr;
            u64* at = to + p * TILE_COLUMNS;
            for (size_t j = 0; j < whole; j += TILE_COLUMNS, at += TILE_COLUMNS * k)
#pragma GCC unroll 8
                for (int v = 0; v < TILE_COLUMNS; v += LANES) store(at + v, words_at<TWO>(data, less, ptrdiff_t(j) + v));
            at = to + whole * k + p * padded;
            for (size_t q = 0; q < width; q++) at[q] = word_at<TWO>(data, less, ptrdiff_t(whole + q));
            for (size_t q = width; q < padded; q++) at[q] = 0;
        }
        return;
    }
    for (size_t j = 0; j < n; j += TILE_COLUMNS) {
        size_t count = least(TILE_COLUMNS, n - j), room = size_t(vectors_of(count)) * LANES, q = 0;
        u64* panel = to + j * k;
        if (LINES_FILL_VECTORS && b.row == 1)
            for (; q + LANES <= count; q += LANES) {
                Lines lines;
                for (int i = 0; i < LANES; i++) {
                    lines.data[i] = b.data + ptrdiff_t(j + q + size_t(i)) * b.column;
                    lines.less[i] = TWO ? b.less + ptrdiff_t(j + q + size_t(i)) * b.column : nullptr;
                }
                interleave<TWO>(lines, k, panel + q, room);
            }
        const u64 *data = b.data + ptrdiff_t(j) * b.column, *less = TWO ? b.less + ptrdiff_t(j) * b.column : nullptr;
        for (size_t p = 0; p < k; p++, panel += room, data += b.row, less += TWO ? b.row : 0) {
            for (size_t i = q; i < count; i++) panel[i] = word_at<TWO>(data, less, ptrdiff_t(i) * b.column);
            for (size_t i = count; i < room; i++) panel[i] = 0;
        }
    }
}

inline void pack_columns(Matrix b, size_t k, size_t n, u64* to) {
    if (b.less) pack_columns<true>(b, k, n, to);
    else pack_columns<false>(b, k, n, to);
}

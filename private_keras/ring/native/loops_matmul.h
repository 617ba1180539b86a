// Blocked matrix product over packed panels, and paths without packing for thin shapes.

constexpr size_t K_BLOCK = 256;
constexpr size_t ROW_BLOCK = (96 + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
constexpr size_t COLUMN_BLOCK = (512 + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;

inline void clear_rows(size_t m, size_t n, u64* c, ptrdiff_t c_row) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) c[ptrdiff_t(i) * c_row + ptrdiff_t(j)] = 0;
}

// The block of b that is packed next, from row p and column j on: while tiles multiply, its words come from memory. Each tile
// asks for one cache line of every row, of the first array, then of the other.
class Coming {
  public:
    Coming(Matrix b, size_t p, size_t j, size_t n) : row(b.row) {
        if (b.column != 1 || j >= n) return;
        Matrix block = from(b, ptrdiff_t(p) * b.row + ptrdiff_t(j));
        at[0] = block.data;
        at[1] = block.less;
        lines = (least(COLUMN_BLOCK, n - j) + LINE - 1) / LINE;
        all = b.less ? 2 * lines : lines;
    }
    Ahead next(const u64* otherwise) {
        if (taken == all) return {otherwise, 0};
        size_t line = taken++;
        return {line < lines ? at[0] + line * LINE : at[1] + (line - lines) * LINE, row};
    }

  private:
    static constexpr size_t LINE = 8;  // words
    const u64* at[2] = {};
    ptrdiff_t row;
    size_t lines = 0, all = 0, taken = 0;
};

// Rows (first_row ..) times b into c (m, n): blocks of k and columns of b stay in the caches while rows pass.
template <class Rows>
void blocked(size_t m, size_t n, size_t k, const Rows& rows, size_t first_row, Matrix b, u64* c, ptrdiff_t c_row, Into how) {
    if (k == 0 && how == Into::set) clear_rows(m, n, c, c_row);
    size_t k_block = least(k, K_BLOCK);
    u64* a_panels = scratch(0, ROW_BLOCK * k_block);
    u64* b_panels = scratch(1, (least(n, COLUMN_BLOCK) + TILE_COLUMNS) * k_block);
    for (size_t j0 = 0; j0 < n; j0 += COLUMN_BLOCK) {
        size_t columns = least(COLUMN_BLOCK, n - j0);
        for (size_t p0 = 0; p0 < k; p0 += K_BLOCK) {
            size_t depth = least(K_BLOCK, k - p0);
            pack_columns(from(b, ptrdiff_t(p0) * b.row + ptrdiff_t(j0) * b.column), depth, columns, b_panels);
            bool further = p0 + depth < k;
            Coming coming(b, further ? p0 + depth : 0, further ? j0 : j0 + columns, n);
            for (size_t i0 = 0; i0 < m; i0 += ROW_BLOCK) {
                size_t block = least(ROW_BLOCK, m - i0);
                for (size_t i = 0; i < block; i += TILE_ROWS) {
                    int count = int(least(TILE_ROWS, block - i));
                    rows.pack(first_row + i0 + i, count, p0, depth, a_panels + i * depth);
                }
                for (size_t j = 0; j < columns; j += TILE_COLUMNS) {
                    size_t width = least(TILE_COLUMNS, columns - j);
                    const u64* b_panel = b_panels + j * depth;
                    Tile whole = packed_tile(TILE_ROWS, vectors_of(width));
                    for (size_t i = 0; i < block; i += TILE_ROWS) {
                        int count = int(least(TILE_ROWS, block - i));
                        Tile run = count == TILE_ROWS ? whole : packed_tile(count, vectors_of(width));
                        run(depth, a_panels + i * depth, 1, TILE_ROWS, b_panel, 0,
                            c + ptrdiff_t(i0 + i) * c_row + ptrdiff_t(j0 + j), c_row, int(width),
                            how == Into::set && p0 > 0 ? Into::add : how, coming.next(b_panel));
                    }
                }
            }
        }
    }
}

// Few rows against contiguous rows of b: every word of b is used so seldom that packing it would cost more.
inline void thin(size_t m, size_t n, size_t k, Matrix a, Matrix b, u64* c, ptrdiff_t c_row, Into how) {
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < m; i += TILE_ROWS) {
        int rows = int(least(TILE_ROWS, m - i));
        for (size_t j = 0; j < whole;) {
            // Strips of nearly one width: a narrow last one would use a part of each cache line.
            size_t left = (whole - j) / LANES, strips = (left + size_t(thin_vectors(rows)) - 1) / size_t(thin_vectors(rows));
            int vectors = int((left + strips - 1) / strips);
            thin_tile(rows, vectors)(k, a.data + ptrdiff_t(i) * a.row, a.row, a.column, b.data + j, b.row,
                                     c + ptrdiff_t(i) * c_row + ptrdiff_t(j), c_row, vectors * LANES, how, {});
            j += size_t(vectors) * LANES;
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = whole; j < n; j++) {
            u64 sum = 0;
            for (size_t p = 0; p < k; p++)
                sum += a.data[ptrdiff_t(i) * a.row + ptrdiff_t(p) * a.column] * b.data[ptrdiff_t(p) * b.row + ptrdiff_t(j)];
            put(c + ptrdiff_t(i) * c_row + ptrdiff_t(j), sum, how);
        }
}

// c += the sum of R rows of b, each times its word and `sign`: one row of a, R columns at a time.
template <int R>
inline void add_rows(size_t n, const u64* a, ptrdiff_t a_column, u64 sign, const u64* b, ptrdiff_t b_row, u64* c) {
    Words x[R];
    for (int i = 0; i < R; i++) x[i] = splat(sign * a[i * a_column]);
    size_t whole = n / LANES * LANES;
    for (size_t j = 0; j < whole; j += LANES) {
        Sum sum = {};
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) multiply_add(sum, x[i], factor(b + i * b_row + ptrdiff_t(j)));
        store(c + j, load(c + j) + total(sum));
    }
    for (size_t j = whole; j < n; j++)
        for (int i = 0; i < R; i++) c[j] += sign * a[i * a_column] * b[i * b_row + ptrdiff_t(j)];
}

// A single row: b passes once, in the order in which it lies in memory, while c stays in the cache.
inline void single_row(size_t n, size_t k, Matrix a, Matrix b, u64* c, Into how) {
    if (how == Into::set) clear_rows(1, n, c, 0);
    u64 sign = how == Into::subtract ? ~u64(0) : 1;
    size_t p = 0;
    for (; p + 4 <= k; p += 4)
        add_rows<4>(n, a.data + ptrdiff_t(p) * a.column, a.column, sign, b.data + ptrdiff_t(p) * b.row, b.row, c);
    for (; p < k; p++)
        add_rows<1>(n, a.data + ptrdiff_t(p) * a.column, a.column, sign, b.data + ptrdiff_t(p) * b.row, b.row, c);
}

// v . row j into to[j * step], of a matrix whose rows are contiguous: four rows at a time.
inline void dots(size_t n, size_t k, const u64* v, const u64* rows, ptrdiff_t row, u64* to, ptrdiff_t step,
                 Into how) {
    size_t whole = k / LANES * LANES;
    for (size_t j = 0; j < n; j += 4) {
        int count = int(least(4, n - j));
        const u64* at[4];
        for (int i = 0; i < 4; i++) at[i] = rows + ptrdiff_t(j + size_t(i < count ? i : 0)) * row;
        Sum sums[4] = {};
        for (size_t p = 0; p < whole; p += LANES) {
            Factor x = factor(v + p);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) multiply_add(sums[i], load(at[i] + p), x);
        }
        for (int i = 0; i < count; i++) {
            u64 sum = sum_lanes(total(sums[i]));
            for (size_t p = whole; p < k; p++) sum += v[p] * at[i][p];
            put(to + ptrdiff_t(j + size_t(i)) * step, sum, how);
        }
    }
}

// Whether packing b would cost more than it saves.
constexpr bool few_rows(size_t m) { return m <= 2 * size_t(TILE_ROWS); }

// Words of a large matrix that are made at a time where it is read without being packed.
constexpr size_t MADE_WORDS = 8192;

// A whole matrix (m, n) of a few rows, made; its columns are contiguous.
inline Matrix made(Matrix a, size_t m, size_t n, u64* to) {
    for (size_t i = 0; i < m; i++) {
        ptrdiff_t at = ptrdiff_t(i) * a.row;
        if (a.column == 1) {
#pragma GCC ivdep
            for (size_t j = 0; j < n; j++) to[i * n + j] = a.data[at + ptrdiff_t(j)] - 2 * a.less[at + ptrdiff_t(j)];
        } else {
            for (size_t j = 0; j < n; j++, at += a.column) to[i * n + j] = a.data[at] - 2 * a.less[at];
        }
    }
    return {to, ptrdiff_t(n), 1};
}

// What is left after a product with `data` of a matrix data - 2 less, for factors that are doubled.
inline Into left(Into how) { return how == Into::subtract ? Into::add : Into::subtract; }

inline const u64* doubled(const u64* from, ptrdiff_t step, size_t n, u64* to) {
    for (size_t i = 0; i < n; i++) to[i] = 2 * from[ptrdiff_t(i) * step];
    return to;
}

// A few rows of a times b, whose columns are contiguous. Memory is what a single row waits for: b and what is taken from
// it are multiplied apart, as they pass. For more rows b is made piece by piece.
inline void few(size_t m, size_t n, size_t k, Matrix a, Matrix b, u64* c, ptrdiff_t c_row, Into how) {
    if (m == 1 && b.less) {
        single_row(n, k, a, {b.data, b.row, b.column}, c, how);
        const u64* twice = doubled(a.data, a.column, k, scratch(2, k));
        return single_row(n, k, {twice, 0, 1}, {b.less, b.row, b.column}, c, left(how));
    }
    size_t step = b.less ? least(k, (MADE_WORDS / (n < 1 ? 1 : n) + 4) / 4 * 4) : k;
    if (k == 0 && how == Into::set) clear_rows(m, n, c, c_row);
    for (size_t p = 0; p < k; p += step) {
        size_t depth = least(step, k - p);
        Matrix left = from(a, ptrdiff_t(p) * a.column), right = from(b, ptrdiff_t(p) * b.row);
        if (b.less) right = made(right, depth, n, scratch(2, step * n));
        if (m == 1) single_row(n, depth, left, right, c, how);
        else thin(m, n, depth, left, right, c, c_row, how);
        if (how == Into::set) how = Into::add;
    }
}

inline void dots_of(size_t n, size_t k, const u64* v, Matrix rows, u64* to, ptrdiff_t step, Into how) {
    dots(n, k, v, rows.data, rows.row, to, step, how);
    if (rows.less) dots(n, k, doubled(v, 1, k, scratch(2, k)), rows.less, rows.row, to, step, left(how));
}

inline void matmul(size_t m, size_t n, size_t k, Matrix a, Matrix b, u64* c, ptrdiff_t c_row, Into how) {
    bool row = m == 1 && (b.row == 1 || b.column == 1), column = n == 1 && (a.column == 1 || (c_row == 1 && a.row == 1));
    if (row && a.less) a = made(a, 1, k, scratch(3, k));
    if (!row && column && b.less) b = turned(made(turned(b), 1, k, scratch(3, k)));
    if (row && b.row == 1 && a.column == 1) return dots_of(n, k, a.data, turned(b), c, 1, how);
    if (column && a.column == 1 && b.row == 1) return dots_of(m, k, b.data, a, c, c_row, how);
    if (column && c_row == 1 && a.row == 1)  // a column is a row: c' = b' a'
        return few(1, m, k, turned(b), turned(a), c, 0, how);
    if (few_rows(m) && b.column == 1) {
        if (a.less) a = made(a, m, k, scratch(3, m * k));
        return few(m, n, k, a, b, c, c_row, how);
    }
    blocked(m, n, k, PlainRows{a}, 0, b, c, c_row, how);
}

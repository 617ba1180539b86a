// The micro tile: R rows times N vectors of columns held in registers while k runs.

#if ISA_LANES == 8
constexpr int TILE_ROWS = 8, TILE_VECTORS = 3, THIN_SUMS = 24, THIN_VECTORS = 8;
#elif ISA_LANES == 4
constexpr int TILE_ROWS = 6, TILE_VECTORS = 1, THIN_SUMS = 6, THIN_VECTORS = 6;
#else
constexpr int TILE_ROWS = 2, TILE_VECTORS = 4, THIN_SUMS = 8, THIN_VECTORS = 4;
#endif
constexpr int TILE_COLUMNS = TILE_VECTORS * LANES;

// Words that are wanted soon, `step` words apart: a packed tile asks for one in each of its k steps.
struct Ahead {
    const u64* at;
    ptrdiff_t step;
};

// a (R, k) b (k, N * LANES) into c (R rows, `width` <= N * LANES columns); the columns of b are contiguous.
typedef void (*Tile)(size_t k, const u64* a, ptrdiff_t a_row, ptrdiff_t a_column, const u64* b, ptrdiff_t b_row, u64* c,
                     ptrdiff_t c_row, int width, Into how, Ahead ahead);

inline Words joined(const u64* c, Words sum, Into how) {
    return how == Into::set ? sum : how == Into::add ? load(c) + sum : load(c) - sum;
}
inline void put(u64* c, u64 sum, Into how) { *c = how == Into::set ? sum : how == Into::add ? *c + sum : *c - sum; }

// PACKED: a and b are panels, whose strides are constants.
template <int R, int N, bool PACKED>
void tile(size_t k, const u64* a, ptrdiff_t a_row, ptrdiff_t a_column, const u64* b, ptrdiff_t b_row, u64* c,
          ptrdiff_t c_row, int width, Into how, [[maybe_unused]] Ahead ahead) {
    if constexpr (PACKED) {
        a_row = 1;
        a_column = TILE_ROWS;
        b_row = N * LANES;
    }
    // c comes from far away and is wanted only after k steps.
    for (int i = 0; i < R; i++) __builtin_prefetch(c + i * c_row, 1);
    Sum sums[R][N] = {};
    for (size_t p = 0; p < k; p++) {
        if constexpr (!PACKED) {
            // Rows of b are far apart: the hardware does not see what comes next.
#pragma GCC unroll 8
            for (int j = 0; j < N * LANES; j += 8)
                __builtin_prefetch(reinterpret_cast<const char*>(b) + (8 * b_row + j) * ptrdiff_t(sizeof(u64)));
        }
        if constexpr (PACKED) {
            __builtin_prefetch(ahead.at, 0, 2);
            ahead.at += ahead.step;
        }
        Factor factors[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) factors[j] = factor(b + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            Words x = splat(a[i * a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) multiply_add(sums[i][j], x, factors[j]);
        }
        a += a_column;
        b += b_row;
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        u64* to = c + i * c_row;
        if (width == N * LANES) {
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) store(to + j * LANES, joined(to + j * LANES, total(sums[i][j]), how));
        } else {
            u64 row[N * LANES];
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) store(row + j * LANES, total(sums[i][j]));
            for (int j = 0; j < width; j++) put(to + j, row[j], how);
        }
    }
}

template <int R, bool PACKED, int... N>
Tile tile_of_vectors(int vectors, std::integer_sequence<int, N...>) {
    static constexpr Tile tiles[] = {&tile<R, N + 1, PACKED>...};
    return tiles[vectors - 1];
}

template <int... R>
Tile packed_tile_of_rows(int rows, int vectors, std::integer_sequence<int, R...>) {
    Tile tiles[] = {tile_of_vectors<R + 1, true>(vectors, std::make_integer_sequence<int, TILE_VECTORS>{})...};
    return tiles[rows - 1];
}

// The tile for 1 .. TILE_ROWS rows and 1 .. TILE_VECTORS vectors of packed panels.
inline Tile packed_tile(int rows, int vectors) {
    return packed_tile_of_rows(rows, vectors, std::make_integer_sequence<int, TILE_ROWS>{});
}

// How many vectors wide a thin tile of some rows may be, for as many sums as there are registers.
constexpr int thin_vectors(int rows) {
    int vectors = THIN_SUMS / rows;
    return vectors < 1 ? 1 : vectors < THIN_VECTORS ? vectors : THIN_VECTORS;
}

template <int R>
Tile thin_tile_of_vectors(int vectors) {
    return tile_of_vectors<R, false>(vectors, std::make_integer_sequence<int, thin_vectors(R)>{});
}

template <int... R>
Tile thin_tile_of_rows(int rows, int vectors, std::integer_sequence<int, R...>) {
    static constexpr Tile (*tiles[])(int) = {&thin_tile_of_vectors<R + 1>...};
    return tiles[rows - 1](vectors);
}

// The tile that reads a and b where they are, for 1 .. thin_vectors(rows) vectors.
inline Tile thin_tile(int rows, int vectors) {
    return thin_tile_of_rows(rows, vectors, std::make_integer_sequence<int, TILE_ROWS>{});
}

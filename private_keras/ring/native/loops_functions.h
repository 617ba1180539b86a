// Ends of functions: polynomials chosen by secret bits, and powers of two.

// Elements at one time: a dozen arrays of them fit the first-level cache.
constexpr size_t PIECE_WORDS = 4, PIECE_ELEMENTS = PIECE_WORDS * WORD_BITS;

// q_0(x) + sum_j b_j q_j(x), where b_j = hat_j xor lam_j. With v0, v1, v2 = lam_j, lam_j l, lam_j l^2, negated where hat_j
// is 1, lam_j's part of the sum is w0 v0 - w1 v1 + w2 v2 + m (w1 v0 - 2 w2 v1) + m^2 w2 v0; the rest is a polynomial whose
// coefficients a are public: a(m) - a'(m) l + a2 l^2.
template <int TERMS>
inline void piecewise_blocks(const Masked& x, size_t n, const Pieces& pieces, const Source& dealt, int party, u64* out,
                             size_t first, size_t last) {
    alignas(64) u64 room[TERMS][PIECE_ELEMENTS + 8], hat[PIECE_ELEMENTS];
    alignas(64) u64 open[3][PIECE_ELEMENTS], sum[3][PIECE_ELEMENTS];
    size_t words = (n + WORD_BITS - 1) / WORD_BITS, squares = TERMS == 3 ? n : 0;
    u64 mine = party == 0 ? ~u64(0) : 0;
    for (size_t word = first * BLOCK_WORDS; word < least(last * BLOCK_WORDS, words); word += PIECE_WORDS) {
        size_t start = word * WORD_BITS, count = least(PIECE_ELEMENTS, n - start);
        for (int k = 0; k < 3; k++)
            for (size_t i = 0; i < PIECE_ELEMENTS; i++) {
                open[k][i] = k < TERMS ? pieces.rows[k] : 0;
                sum[k][i] = 0;
            }
        for (size_t j = 1; j < pieces.count; j++) {
            const u64* w = pieces.rows + j * TERMS;
            u64 w0 = w[0], w1 = w[1], w2 = TERMS == 3 ? w[TERMS - 1] : 0;
            const u64* v[3];
            for (int k = 0; k < TERMS; k++)
                v[k] = read(dealt, squares + ((j - 1) * TERMS + size_t(k)) * n + start, count, room[k]);
            spread_bits(pieces.bits + (j - 1) * words + word, least(PIECE_WORDS, words - word), hat);
#pragma GCC ivdep
            for (size_t i = 0; i < count; i++) {
                u64 h = hat[i], v0 = (v[0][i] ^ h) - h, v1 = (v[1][i] ^ h) - h;
                open[0][i] += w0 & h;
                open[1][i] += w1 & h;
                sum[0][i] += w0 * v0 - w1 * v1;
                sum[1][i] += w1 * v0;
                if constexpr (TERMS == 3) {
                    open[2][i] += w2 & h;
                    sum[0][i] += w2 * ((v[2][i] ^ h) - h);
                    sum[1][i] -= 2 * w2 * v1;
                    sum[2][i] += w2 * v0;
                }
            }
        }
        const u64* square = TERMS == 3 ? read(dealt, start, count, room[0]) : open[2];
        const u64 *m = x.m + start, *l = x.l + start;
#pragma GCC ivdep
        for (size_t i = 0; i < count; i++) {
            u64 a0 = open[0][i], a1 = open[1][i], a2 = open[2][i];
            u64 slope = a1 + 2 * a2 * m[i];
            u64 value = sum[0][i] + (a0 & mine) + m[i] * (sum[1][i] + (a1 & mine) + m[i] * (sum[2][i] + (a2 & mine)));
            out[start + i] = value - slope * l[i] + a2 * square[i];
        }
    }
}

inline void piecewise(const Masked& x, size_t n, const Pieces& pieces, const Source& dealt, int party, u64* out,
                      size_t first, size_t last) {
    if (pieces.terms == 3) piecewise_blocks<3>(x, n, pieces, dealt, party, out, first, last);
    else piecewise_blocks<2>(x, n, pieces, dealt, party, out, first, last);
}

// r^2 where there are three terms, then lam_j, lam_j r and lam_j r^2 for each piece but the first.
inline void piecewise_deal(const u64* r, size_t n, const Pieces& pieces, const Source& share0, u64* out, size_t first,
                           size_t last) {
    alignas(64) u64 room[SOURCE_ROOM], lam[BLOCK_ELEMENTS], square[BLOCK_ELEMENTS];
    size_t words = (n + WORD_BITS - 1) / WORD_BITS;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        size_t from = block.element;
        if (pieces.terms == 3) {
            const u64* share = read(share0, from, block.elements, room);
#pragma GCC ivdep
            for (size_t i = 0; i < block.elements; i++) {
                square[i] = r[from + i] * r[from + i];
                out[from + i] = square[i] - share[i];
            }
            from += n;
        }
        for (size_t j = 1; j < pieces.count; j++) {
            spread_bits(pieces.bits + (j - 1) * words + block.first, block.words, lam);
            for (int k = 0; k < pieces.terms; k++, from += n) {
                const u64* share = read(share0, from, block.elements, room);
                const u64* power = k == 1 ? r + block.element : square;
                if (k == 0)
                    for (size_t i = 0; i < block.elements; i++) out[from + i] = (lam[i] & 1) - share[i];
                else
                    for (size_t i = 0; i < block.elements; i++) out[from + i] = (lam[i] & power[i]) - share[i];
            }
        }
    }
}

inline u64 mantissa(u64 c, const Exp2& how) {
    int half = how.table_fraction / 2;
    u64 mask = (u64(1) << half) - 1, x = c << (how.table_fraction - how.fraction);
    return u64((unsigned __int128)how.coarse[x >> half & mask] * how.fine[x & mask] >> 62);
}

// round(mantissa 2^shift), without branches: the sign of the shift is as good as random.
inline u64 power(u64 mantissa, int64_t shift) {
    int64_t left = shift < 0 ? 0 : shift > 63 ? 63 : shift, right = shift > 0 ? 0 : shift < -63 ? 63 : -shift;
    u64 half_unit = (u64(1) << right) >> 1, alive = shift < -63 ? 0 : ~u64(0);
    return ((mantissa + half_unit) >> right << left) & alive;
}

// round(2^(c / 2^fraction + shift + 62))
inline u64 exp2_of(u64 c, const Exp2& how) {
    return power(mantissa(c, how), int64_t(c >> how.fraction) + how.shift);
}

inline void exp2_public(const u64* c, size_t n, const Exp2& how, u64* out) {
    for (size_t i = 0; i < n; i++) out[i] = exp2_of(c[i], how);
}

// Both evaluators know the power of c = m mod 2^bits, `jump` binary places higher where the bit hat xor lam says so; d and
// lam d are dealt: low d + (high - low) (hat d + (1 - 2 hat) lam d).
inline void exp2_share(const u64* plane, const u64* m, size_t n, const Source& dealt, const Exp2& how, int bits, int jump,
                       u64* out, size_t first, size_t last) {
    alignas(64) u64 d_room[SOURCE_ROOM], product_room[SOURCE_ROOM], hat[BLOCK_ELEMENTS];
    u64 mask = (u64(1) << bits) - 1;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* d = read(dealt, block.element, block.elements, d_room);
        const u64* product = read(dealt, n + block.element, block.elements, product_room);
        spread_bits(plane + block.first, block.words, hat);
        for (size_t i = 0; i < block.elements; i++) {
            u64 c = m[block.element + i] & mask, scaled = mantissa(c, how);
            int64_t shift = int64_t(c >> how.fraction) + how.shift;
            u64 low = power(scaled, shift), high = power(scaled, shift + jump), h = hat[i];
            out[block.element + i] = low * d[i] + (high - low) * ((d[i] & h) + ((product[i] ^ h) - h));
        }
    }
}

// d = 2^(2^bits - r mod 2^bits), scaled; then lam d.
inline void exp2_deal(const u64* plane, const u64* r, size_t n, const Source& share0, const Exp2& how, int bits, u64* out,
                      size_t first, size_t last) {
    alignas(64) u64 d_room[SOURCE_ROOM], product_room[SOURCE_ROOM], lam[BLOCK_ELEMENTS];
    u64 size = u64(1) << bits;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* share = read(share0, block.element, block.elements, d_room);
        const u64* product = read(share0, n + block.element, block.elements, product_room);
        spread_bits(plane + block.first, block.words, lam);
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 d = exp2_of(size - (r[at] & (size - 1)), how);
            out[at] = d - share[i];
            out[n + at] = (d & lam[i]) - product[i];
        }
    }
}

// Steps of the protocol on ring elements, one block at a time: words of streams are made and used within the first-level
// cache.

inline void add_words(const Source& x, const Source& y, size_t n, u64* out, size_t first, size_t last) {
    alignas(64) u64 x_room[SOURCE_ROOM], y_room[SOURCE_ROOM];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* a = read(x, block.element, block.elements, x_room);
        const u64* b = read(y, block.element, block.elements, y_room);
#pragma GCC ivdep
        for (size_t i = 0; i < block.elements; i++) out[block.element + i] = a[i] + b[i];
    }
}

inline void subtract_words(const Source& x, const Source& y, size_t n, u64* out, size_t first, size_t last) {
    alignas(64) u64 x_room[SOURCE_ROOM], y_room[SOURCE_ROOM];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* a = read(x, block.element, block.elements, x_room);
        const u64* b = read(y, block.element, block.elements, y_room);
#pragma GCC ivdep
        for (size_t i = 0; i < block.elements; i++) out[block.element + i] = a[i] - b[i];
    }
}

// own = the words, message = z + own
inline void mask(const u64* z, size_t n, const Source& words, u64* own, u64* message, size_t first, size_t last) {
    alignas(64) u64 room[SOURCE_ROOM];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* fresh = read(words, block.element, block.elements, room);
#pragma GCC ivdep
        for (size_t i = 0; i < block.elements; i++) {
            own[block.element + i] = fresh[i];
            message[block.element + i] = z[block.element + i] + fresh[i];
        }
    }
}

// The product of masked values, element by element: z = mx (my - ly) - lx my + g, or -mx ly - lx my + g at party 1.
inline void multiply(const Masked& x, const Masked& y, size_t n, const Source& dealt, int party, u64* out, size_t first,
                     size_t last) {
    alignas(64) u64 room[SOURCE_ROOM];
    u64 mine = party == 0 ? ~u64(0) : 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* g = read(dealt, block.element, block.elements, room);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++)
            out[at] = x.m[at] * ((y.m[at] & mine) - y.l[at]) - x.l[at] * y.m[at] + g[i];
    }
}

inline void multiply_deal(const u64* x, const u64* y, size_t n, const Source& share0, u64* out, size_t first,
                          size_t last) {
    alignas(64) u64 room[SOURCE_ROOM];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* g = read(share0, block.element, block.elements, room);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) out[at] = x[at] * y[at] - g[i];
    }
}

// Shares of a bit mod 2^bits in the upper bits of words: full words at evaluator 0, planes at evaluator 1. `part` counts
// such shares from word `base` on.
inline const u64* upper_words(const Source& dealt, size_t base, size_t part, size_t n, const Block& block,
                              Rescaling how, u64* room) {
    if (how.party == 0) return read(dealt, base + part * n + block.element, block.elements, room);
    alignas(64) u64 rows[64 * BLOCK_WORDS + 8];
    size_t words = (n + WORD_BITS - 1) / WORD_BITS;
    rows_to_block(read_rows(dealt, base + (part * words + block.first) * size_t(how.bits), block, how.bits, rows), how.bits,
                  64 - how.bits, room);
    return room;
}

// With c = z + 2^62 + r mod 2^64, that wraps where bit 63 of c is 0 and that of r is 1: 2^64 factor / 2^bits times a share
// of [c wraps], given the share of r's bit in the upper bits of a word.
template <bool UNIT>
inline u64 wrapped(u64 c, u64 upper, Rescaling how) {
    u64 share = upper >> (64 - how.bits) << (64 - how.bits) & u64(int64_t(~c) >> 63);
    return UNIT ? share : share * how.factor;
}

// What both evaluators know of (c - 2^62) factor / 2^bits.
template <bool UNIT>
inline u64 shifted(u64 c, Rescaling how) {
    u64 whole = UNIT ? c >> how.bits : u64((unsigned __int128)c * how.factor >> how.bits);
    return whole - (how.factor << (62 - how.bits));
}

template <bool UNIT>
inline void rescale_blocks(const u64* m, size_t n, const Source& dealt, Rescaling how, u64* out, size_t first,
                           size_t last) {
    alignas(64) u64 word_room[SOURCE_ROOM], upper_room[SOURCE_ROOM];
    u64 mine = how.party == 0 ? ~u64(0) : 0, sign = how.negative ? ~u64(0) : 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* word = read(dealt, block.element, block.elements, word_room);
        const u64* upper = upper_words(dealt, n, 0, n, block, how, upper_room);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 c = m[at] + (u64(1) << 62);
            u64 z = wrapped<UNIT>(c, upper[i], how) - word[i] + (shifted<UNIT>(c, how) & mine);
            out[at] = (z ^ sign) - sign;
        }
    }
}

inline void rescale(const u64* m, size_t n, const Source& dealt, Rescaling how, u64* out, size_t first,
                    size_t last) {
    if (how.factor == 1) rescale_blocks<true>(m, n, dealt, how, out, first, last);
    else rescale_blocks<false>(m, n, dealt, how, out, first, last);
}

// `bits` planes of the words of one block; what is missing of the last one counts as 0.
inline void put_planes(const u64* words, const Block& block, int bits, u64* message) {
    alignas(64) u64 rows[64 * BLOCK_WORDS], elements[BLOCK_ELEMENTS];
    if (block.elements < BLOCK_ELEMENTS) {
        for (size_t i = 0; i < BLOCK_ELEMENTS; i++) elements[i] = i < block.elements ? words[i] : 0;
        words = elements;
    }
    message += block.first * size_t(bits);
    u64* to = room_for_rows(message, block, rows);
    block_to_rows(words, bits, 0, to);
    put_rows(message, block, bits, rows);
}

inline void rescale_deal(const u64* r, size_t n, const Source& share0, Rescaling how, u64* out, size_t first,
                         size_t last) {
    alignas(64) u64 word_room[SOURCE_ROOM], upper_room[SOURCE_ROOM], top[BLOCK_ELEMENTS];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* word = read(share0, block.element, block.elements, word_room);
        const u64* upper = read(share0, n + block.element, block.elements, upper_room);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 whole = how.factor == 1 ? r[at] >> how.bits : u64((unsigned __int128)r[at] * how.factor >> how.bits);
            out[at] = whole - word[i];
            top[i] = (r[at] >> 63) - (upper[i] >> (64 - how.bits));
        }
        put_planes(top, block, how.bits, out + n);
    }
}

// All ones for each bit of a row that is 1.
inline void spread_bits(const u64* row, size_t words, u64* masks) {
    for (size_t w = 0; w < words; w++)
        for (size_t i = 0; i < 64; i++) masks[64 * w + i] = -(row[w] >> i & 1);
}

// Masked x times the bit hat xor lam, from shares of lam and lam l: hat x + (1 - 2 hat) (m lam - lam l).
inline void gate(const u64* plane, const Masked& x, size_t n, const Source& lam, const Source& lam_l, int party, u64* out,
                 size_t first, size_t last) {
    alignas(64) u64 lam_room[SOURCE_ROOM], product_room[SOURCE_ROOM], hat[BLOCK_ELEMENTS];
    u64 mine = party == 0 ? ~u64(0) : 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* bit = read(lam, block.element, block.elements, lam_room);
        const u64* product = read(lam_l, block.element, block.elements, product_room);
        spread_bits(plane + block.first, block.words, hat);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 kept = x.m[at] * bit[i] - product[i];
            out[at] = (((x.m[at] & mine) - x.l[at]) & hat[i]) + ((kept ^ hat[i]) - hat[i]);
        }
    }
}

inline void gate_deal(const u64* plane, const u64* r, size_t n, const Source& lam0, const Source& lam_l0, u64* lam_out,
                      u64* lam_l_out, size_t first, size_t last) {
    alignas(64) u64 lam_room[SOURCE_ROOM], product_room[SOURCE_ROOM], lam[BLOCK_ELEMENTS];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* bit = read(lam0, block.element, block.elements, lam_room);
        const u64* product = read(lam_l0, block.element, block.elements, product_room);
        spread_bits(plane + block.first, block.words, lam);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            lam_out[at] = (lam[i] & 1) - bit[i];
            lam_l_out[at] = (lam[i] & r[at]) - product[i];
        }
    }
}

// The same, divided by 2^bits: shares of r >> bits, lam, lam (r >> bits), then of r's top bit and lam times it.
inline void gate_rescaled(const u64* plane, const u64* m, size_t n, const Source& dealt, Rescaling how, u64* out,
                          size_t first, size_t last) {
    alignas(64) u64 word_room[SOURCE_ROOM], lam_room[SOURCE_ROOM], product_room[SOURCE_ROOM];
    alignas(64) u64 upper_room[SOURCE_ROOM], upper_product_room[SOURCE_ROOM], hat[BLOCK_ELEMENTS];
    u64 mine = how.party == 0 ? ~u64(0) : 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* word = read(dealt, block.element, block.elements, word_room);
        const u64* bit = read(dealt, n + block.element, block.elements, lam_room);
        const u64* product = read(dealt, 2 * n + block.element, block.elements, product_room);
        const u64* upper = upper_words(dealt, 3 * n, 0, n, block, how, upper_room);
        const u64* upper_product = upper_words(dealt, 3 * n, 1, n, block, how, upper_product_room);
        spread_bits(plane + block.first, block.words, hat);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 c = m[at] + (u64(1) << 62), whole = shifted<true>(c, how);
            u64 value = wrapped<true>(c, upper[i], how) - word[i] + (whole & mine);
            u64 kept = wrapped<true>(c, upper_product[i], how) - product[i] + whole * bit[i];
            out[at] = (value & hat[i]) + ((kept ^ hat[i]) - hat[i]);
        }
    }
}

inline void gate_rescaled_deal(const u64* plane, const u64* r, size_t n, const Source& share0, int bits, u64* out,
                               size_t first, size_t last) {
    alignas(64) u64 room[5][SOURCE_ROOM], lam[BLOCK_ELEMENTS], top[BLOCK_ELEMENTS], product[BLOCK_ELEMENTS];
    u64* planes = out + 3 * n;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* share[5];
        for (size_t part = 0; part < 5; part++)
            share[part] = read(share0, part * n + block.element, block.elements, room[part]);
        spread_bits(plane + block.first, block.words, lam);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) {
            u64 high = r[at] >> bits, bit = r[at] >> 63;
            out[at] = high - share[0][i];
            out[n + at] = (lam[i] & 1) - share[1][i];
            out[2 * n + at] = (lam[i] & high) - share[2][i];
            top[i] = bit - (share[3][i] >> (64 - bits));
            product[i] = (lam[i] & bit) - (share[4][i] >> (64 - bits));
        }
        put_planes(top, block, bits, planes);
        put_planes(product, block, bits, planes + (n + WORD_BITS - 1) / WORD_BITS * size_t(bits));
    }
}

// A share of the bit itself: hat + (1 - 2 hat) lam.
inline void bit_share(const u64* plane, size_t n, const Source& dealt, int party, u64* out, size_t first, size_t last) {
    alignas(64) u64 room[SOURCE_ROOM], hat[BLOCK_ELEMENTS];
    u64 one = party == 0 ? 1 : 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* lam = read(dealt, block.element, block.elements, room);
        spread_bits(plane + block.first, block.words, hat);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++)
            out[at] = (one & hat[i]) + ((lam[i] ^ hat[i]) - hat[i]);
    }
}

inline void bit_deal(const u64* plane, size_t n, const Source& share0, u64* out, size_t first, size_t last) {
    alignas(64) u64 room[SOURCE_ROOM], lam[BLOCK_ELEMENTS];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* share = read(share0, block.element, block.elements, room);
        spread_bits(plane + block.first, block.words, lam);
#pragma GCC ivdep
        for (size_t i = 0, at = block.element; i < block.elements; i++, at++) out[at] = (lam[i] & 1) - share[i];
    }
}

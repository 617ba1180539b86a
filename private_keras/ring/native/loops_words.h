// Plane messages as calls take them, and steps that go element by element.

inline void to_planes(const u64* x, size_t n, int bits, int shift, u64* out, size_t first, size_t last) {
    alignas(64) u64 elements[BLOCK_ELEMENTS], room[64 * BLOCK_WORDS];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* from = whole_elements(x, block, elements);
        u64* message = out + block.first * size_t(bits);
        u64* to = room_for_rows(message, block, room);
        if (bits == 1) {
            for (size_t w = 0; w < BLOCK_WORDS; w++) {
                u64 word = 0;
                for (size_t i = 0; i < 64; i++) word |= (from[64 * w + i] >> shift & 1) << i;
                to[w] = word;
            }
        } else {
            block_to_rows(from, bits, shift, to);
        }
        put_rows(message, block, bits, room);
    }
}

inline void from_planes(const u64* planes, size_t n, int bits, int shift, u64* out, size_t first, size_t last) {
    alignas(64) u64 elements[BLOCK_ELEMENTS], room[64 * BLOCK_WORDS + 2];
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* rows = read_rows(Source{planes}, block.first * size_t(bits), block, bits, room);
        u64* to = block.elements == BLOCK_ELEMENTS ? out + block.element : elements;
        if (bits == 1) {
            for (size_t w = 0; w < BLOCK_WORDS; w++)
                for (size_t i = 0; i < 64; i++) to[64 * w + i] = (rows[w] >> i & 1) << shift;
        } else {
            rows_to_block(rows, bits, shift, to);
        }
        if (to == elements)
            for (size_t i = 0; i < block.elements; i++) out[block.element + i] = elements[i];
    }
}

// floor(x factor / 2^bits) mod 2^64
inline void multiply_shift(const u64* x, size_t n, u64 factor, int bits, u64* out) {
    for (size_t i = 0; i < n; i++) out[i] = u64((unsigned __int128)x[i] * factor >> bits);
}

// Base-16 digits of the comparison, one-hot on the helper's side, looked up on the evaluators'.

constexpr int MAX_DIGIT_PLANES = MAX_DIGITS * 15;

inline Bits row_at(const u64* rows, int row, int q) { return load_bits(rows + row * int(BLOCK_WORDS) + q * BIT_LANES); }
inline void put_row(u64* rows, int row, int q, Bits v) { store_bits(rows + row * int(BLOCK_WORDS) + q * BIT_LANES, v); }

// out[v-1] = [digit == v] xor share[v-1] for v = 1 .. 2^SIZE - 1.
template <int SIZE>
void deal_digit(const u64* bits, const u64* share, u64* out) {
    for (int q = 0; q < BLOCK_VECTORS; q++) {
        Bits is[1 << SIZE] = {~Bits{}};
#pragma GCC unroll 4
        for (int k = 0; k < SIZE; k++) {
            Bits bit = row_at(bits, k, q);
#pragma GCC unroll 8
            for (int v = 0; v < 1 << k; v++) {
                is[v + (1 << k)] = is[v] & bit;
                is[v] &= ~bit;
            }
        }
#pragma GCC unroll 16
        for (int v = 1; v < 1 << SIZE; v++) put_row(out, v - 1, q, is[v] ^ row_at(share, v - 1, q));
    }
}

// Shares of [c < digit] and [c == digit] from shares of the one-hot digit: three values per node of a binary tree over
// v, namely the sum of its leaves, the sum of those above c, and the leaf at c.
template <int SIZE>
void compare_digit(const u64* bits, const u64* hot, u64 one, u64* less, u64* equal) {
    for (int q = 0; q < BLOCK_VECTORS; q++) {
        Bits sum[1 << SIZE], above[1 << SIZE], at[1 << SIZE];
        sum[0] = one - Bits{};  // all entries XOR to one, so the entry that was left out is one xor the others
#pragma GCC unroll 16
        for (int v = 1; v < 1 << SIZE; v++) {
            sum[v] = row_at(hot, v - 1, q);
            sum[0] ^= sum[v];
        }
        Bits low = row_at(bits, 0, q);
#pragma GCC unroll 8
        for (int v = 0; v < 1 << (SIZE - 1); v++) {
            Bits both = sum[2 * v] ^ sum[2 * v + 1];
            at[v] = sum[2 * v] ^ (low & both);
            above[v] = sum[2 * v + 1] & ~low;
            sum[v] = both;
        }
#pragma GCC unroll 4
        for (int k = 1; k < SIZE; k++) {
            Bits bit = row_at(bits, k, q);
#pragma GCC unroll 4
            for (int v = 0; v < 1 << (SIZE - 1 - k); v++) {
                Bits beyond = above[2 * v] ^ sum[2 * v + 1];
                above[v] = beyond ^ (bit & (beyond ^ above[2 * v + 1]));
                at[v] = at[2 * v] ^ (bit & (at[2 * v] ^ at[2 * v + 1]));
                sum[v] = sum[2 * v] ^ sum[2 * v + 1];
            }
        }
        put_row(less, 0, q, above[0]);
        put_row(equal, 0, q, at[0]);
    }
}

inline void digits_deal(const u64* r, size_t n, int width, int low, const Source& share, u64* out, size_t first,
                        size_t last) {
    alignas(64) u64 elements[BLOCK_ELEMENTS], bits[64 * BLOCK_WORDS];
    alignas(64) u64 share_room[MAX_DIGIT_PLANES * BLOCK_WORDS + 8], out_room[MAX_DIGIT_PLANES * BLOCK_WORDS];
    int planes = digit_planes(width), digits = digits_of(width);
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        block_to_rows(whole_elements(r, block, elements), width, low, bits);
        size_t start = block.first * size_t(planes);
        const u64* from = read_rows(share, start, block, planes, share_room);
        u64* to = room_for_rows(out + start, block, out_room);
        size_t at = 0;
        for (int i = 0; i < digits; i++) {
            const u64* digit = bits + size_t(DIGIT_BITS * i) * BLOCK_WORDS;
            int size = digit_size(width, i);
            if (size == 4) deal_digit<4>(digit, from + at, to + at);
            else if (size == 3) deal_digit<3>(digit, from + at, to + at);
            else if (size == 2) deal_digit<2>(digit, from + at, to + at);
            else deal_digit<1>(digit, from + at, to + at);
            at += ((size_t(1) << size) - 1) * BLOCK_WORDS;
        }
        put_rows(out + start, block, planes, out_room);
    }
}

// Elements to bit planes and back. A vector of the bit loops holds the words of BIT_LANES neighbouring groups of 64
// elements, so after a 64 x 64 bit transposition of all its lanes a plane's words lie side by side.

constexpr int BLOCK_VECTORS = int(BLOCK_WORDS) / BIT_LANES;

template <int STEP>
constexpr Bits first_lanes() {  // lanes of shuffle(a, b, .): a where the lane's STEP bit is 0, else b's partner
    Bits lanes{};
    for (int i = 0; i < BIT_LANES; i++) lanes[i] = u64(i & STEP ? BIT_LANES + i - STEP : i);
    return lanes;
}
template <int STEP>
constexpr Bits second_lanes() {
    Bits lanes{};
    for (int i = 0; i < BIT_LANES; i++) lanes[i] = u64(i & STEP ? BIT_LANES + i : i + STEP);
    return lanes;
}

template <int STEP>
inline void swap_lanes(Bits* v) {
#pragma GCC unroll 8
    for (int i = 0; i < BIT_LANES; i++) {
        if (i & STEP) continue;
        Bits a = v[i], b = v[i + STEP];
        v[i] = __builtin_shuffle(a, b, first_lanes<STEP>());
        v[i + STEP] = __builtin_shuffle(a, b, second_lanes<STEP>());
    }
}

// BIT_LANES vectors as a square matrix of words, transposed.
inline void transpose_lanes(Bits* v) {
    if constexpr (BIT_LANES >= 2) swap_lanes<1>(v);
    if constexpr (BIT_LANES >= 4) swap_lanes<2>(v);
    if constexpr (BIT_LANES >= 8) swap_lanes<4>(v);
}

template <int STEP>
inline void swap_bits(Bits& a, Bits& b) {
    constexpr u64 mask = ~u64(0) / ((u64(1) << STEP) + 1);
    Bits t = ((a >> STEP) ^ b) & (mask - Bits{});
    b ^= t;
    a ^= t << STEP;
}

// Three levels of the butterfly on eight vectors `stride` apart.
template <int FAR, int STRIDE>
inline void butterfly(Bits* m) {
    Bits v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) v[i] = m[i * STRIDE];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) swap_bits<FAR>(v[i], v[i + 4]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        if (!(i & 2)) swap_bits<FAR / 2>(v[i], v[i + 2]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) swap_bits<FAR / 4>(v[i], v[i + 1]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) m[i * STRIDE] = v[i];
}

// Transposes the 64 x 64 bits of each lane; of the result only rows low .. high-1 are finished.
inline void transpose_bits(Bits* m, int low, int high) {
    for (int i = 0; i < 8; i++) butterfly<32, 8>(m + i);
    for (int i = low / 8; i * 8 < high; i++) butterfly<4, 1>(m + 8 * i);
}

// Bits shift .. shift+bits-1 of a block of 1024 elements, as `bits` rows of 16 words.
inline void block_to_rows(const u64* x, int bits, int shift, u64* rows) {
    for (int q = 0; q < BLOCK_VECTORS; q++) {
        Bits m[64];
        const u64* from = x + q * BIT_LANES * 64;
        for (int e = 0; e < 64; e += BIT_LANES) {
#pragma GCC unroll 8
            for (int lane = 0; lane < BIT_LANES; lane++) m[e + lane] = load_bits(from + lane * 64 + e);
            transpose_lanes(m + e);
        }
        transpose_bits(m, shift, shift + bits);
        for (int i = 0; i < bits; i++) store_bits(rows + size_t(i) * BLOCK_WORDS + q * BIT_LANES, m[shift + i]);
    }
}

inline void rows_to_block(const u64* rows, int bits, int shift, u64* x) {
    for (int q = 0; q < BLOCK_VECTORS; q++) {
        Bits m[64] = {};
        for (int i = 0; i < bits; i++) m[shift + i] = load_bits(rows + size_t(i) * BLOCK_WORDS + q * BIT_LANES);
        transpose_bits(m, 0, 64);
        u64* to = x + q * BIT_LANES * 64;
        for (int e = 0; e < 64; e += BIT_LANES) {
            transpose_lanes(m + e);
#pragma GCC unroll 8
            for (int lane = 0; lane < BIT_LANES; lane++) store_bits(to + lane * 64 + e, m[e + lane]);
        }
    }
}

// One block of a message of some planes, at full size: a short last block is padded into `room`.
struct Block {
    size_t first, words;  // in one plane
    size_t element, elements;
};

inline Block block_at(size_t index, size_t n) {
    size_t first = index * BLOCK_WORDS, all = (n + WORD_BITS - 1) / WORD_BITS;
    size_t element = index * BLOCK_ELEMENTS;
    return {first, least(BLOCK_WORDS, all - first), element, least(BLOCK_ELEMENTS, n - element)};
}

inline u64* room_for_rows(u64* to, const Block& block, u64* room) { return block.words == BLOCK_WORDS ? to : room; }

// Takes a short last block from `room` into the message.
inline void put_rows(u64* to, const Block& block, int planes, const u64* room) {
    if (block.words == BLOCK_WORDS) return;
    for (int i = 0; i < planes; i++)
        for (size_t w = 0; w < block.words; w++) to[size_t(i) * block.words + w] = room[size_t(i) * BLOCK_WORDS + w];
}

inline const u64* whole_elements(const u64* x, const Block& block, u64* room) {
    if (block.elements == BLOCK_ELEMENTS) return x + block.element;
    for (size_t i = 0; i < BLOCK_ELEMENTS; i++) room[i] = i < block.elements ? x[block.element + i] : 0;
    return room;
}

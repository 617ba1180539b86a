// Vectors and multiply-accumulate mod 2^64 of one instruction set. Included by one isa_*.cpp each, inside its own
// anonymous namespace, so every function here has internal linkage.
//
// LANES words make a vector of the matrix loops, BIT_LANES words one of the bit loops.

constexpr int LANES = ISA_LANES;
// Without vectors a scalar multiply beats two lanes put together from 32-bit products; bits still go two words at once.
constexpr int BIT_LANES = LANES == 1 ? 2 : LANES;

typedef u64 Bits __attribute__((vector_size(BIT_LANES * 8)));
typedef u64 LooseBits __attribute__((vector_size(BIT_LANES * 8), aligned(8), may_alias));

inline Bits load_bits(const u64* p) { return *reinterpret_cast<const LooseBits*>(p); }
inline void store_bits(u64* p, Bits v) { *reinterpret_cast<LooseBits*>(p) = v; }

#if ISA_LANES > 1
typedef Bits Words;
inline Words load(const u64* p) { return load_bits(p); }
inline void store(u64* p, Words v) { store_bits(p, v); }
inline Words splat(u64 x) { return x - Words{}; }
#else
typedef u64 Words;
inline Words load(const u64* p) { return *p; }
inline void store(u64* p, Words v) { *p = v; }
inline Words splat(u64 x) { return x; }
#endif

#if ISA_LANES == 4
// AVX2 has no 64-bit product. low(a) low(b) is one vpmuludq; both cross products, which count only mod 2^32, are one
// vpmulld of a with b's halves swapped, and are added up apart until the end.
typedef uint32_t Halves __attribute__((vector_size(32)));
struct Factor {
    Words words;
    Halves swapped;
};
struct Sum {
    Words low;
    Halves cross;
};
inline Factor factor(const u64* p) {
    Words b = load(p);
    return {b, (Halves)_mm256_shuffle_epi32((__m256i)b, 0xB1)};
}
inline void multiply_add(Sum& sum, Words a, const Factor& b) {
    sum.low += (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b.words);
    sum.cross += (Halves)a * b.swapped;
}
inline Words total(const Sum& sum) {
    Words cross = (Words)sum.cross;
    return sum.low + ((cross + (cross >> 32)) << 32);
}
#else
// AVX-512DQ multiplies 64-bit lanes (vpmullq); the portable build multiplies words.
struct Factor {
    Words words;
};
struct Sum {
    Words words;
};
inline Factor factor(const u64* p) { return {load(p)}; }
inline void multiply_add(Sum& sum, Words a, const Factor& b) { sum.words += a * b.words; }
inline Words total(const Sum& sum) { return sum.words; }
#endif

inline u64 sum_lanes(Words v) {
    if constexpr (LANES == 1) {
        u64 word;
        __builtin_memcpy(&word, &v, sizeof word);
        return word;
    } else {
        u64 word[LANES], sum = 0;
        __builtin_memcpy(word, &v, sizeof word);
        for (int i = 0; i < LANES; i++) sum += word[i];
        return sum;
    }
}

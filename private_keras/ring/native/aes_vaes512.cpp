// Four blocks per vector (VAES with AVX-512).
#include <immintrin.h>

#include "aes.h"

namespace {

constexpr int VECTOR_BLOCKS = 4;
typedef u64 Vector __attribute__((vector_size(64)));
typedef u64 LooseVector __attribute__((vector_size(64), aligned(8), may_alias));

inline Vector broadcast(__m128i key) {
    u64 a = u64(_mm_cvtsi128_si64(key)), b = u64(_mm_extract_epi64(key, 1));
    return Vector{a, b, a, b, a, b, a, b};
}
inline Vector first_counter(u64 nonce, u64 first) {
    return Vector{nonce, first, nonce, first + 1, nonce, first + 2, nonce, first + 3};
}
constexpr Vector counter_step() { return Vector{0, 4, 0, 4, 0, 4, 0, 4}; }
inline Vector swap_bytes(Vector v) {
    constexpr u64 low = 0x0001020304050607, high = 0x08090A0B0C0D0E0F;
    constexpr Vector order = {low, high, low, high, low, high, low, high};
    return (Vector)_mm512_shuffle_epi8((__m512i)v, (__m512i)order);
}
inline Vector encrypt_round(Vector v, Vector key) { return (Vector)_mm512_aesenc_epi128((__m512i)v, (__m512i)key); }
inline Vector encrypt_last(Vector v, Vector key) { return (Vector)_mm512_aesenclast_epi128((__m512i)v, (__m512i)key); }

#include "aes_stream.h"

}  // namespace

void aes_vaes512(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out) {
    stream(key, nonce, first, n, out);
}

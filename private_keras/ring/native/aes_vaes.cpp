// Two blocks per vector (VAES with AVX2).
#include <immintrin.h>

#include "aes.h"

namespace {

constexpr int VECTOR_BLOCKS = 2;
typedef u64 Vector __attribute__((vector_size(32)));
typedef u64 LooseVector __attribute__((vector_size(32), aligned(8), may_alias));

inline Vector broadcast(__m128i key) { return (Vector)_mm256_broadcastsi128_si256(key); }
inline Vector first_counter(u64 nonce, u64 first) { return Vector{nonce, first, nonce, first + 1}; }
constexpr Vector counter_step() { return Vector{0, 2, 0, 2}; }
inline Vector swap_bytes(Vector v) {
    const __m128i order = _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    return (Vector)_mm256_shuffle_epi8((__m256i)v, _mm256_broadcastsi128_si256(order));
}
inline Vector encrypt_round(Vector v, Vector key) { return (Vector)_mm256_aesenc_epi128((__m256i)v, (__m256i)key); }
inline Vector encrypt_last(Vector v, Vector key) { return (Vector)_mm256_aesenclast_epi128((__m256i)v, (__m256i)key); }

#include "aes_stream.h"

}  // namespace

void aes_vaes(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out) {
    stream(key, nonce, first, n, out);
}

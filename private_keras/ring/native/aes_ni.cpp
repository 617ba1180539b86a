// One block per vector, eight vectors in flight.
#include "aes.h"
#include "aes_key.h"

namespace {

constexpr int VECTOR_BLOCKS = 1;
typedef u64 Vector __attribute__((vector_size(16)));
typedef u64 LooseVector __attribute__((vector_size(16), aligned(8), may_alias));

inline Vector broadcast(__m128i key) { return (Vector)key; }
inline Vector first_counter(u64 nonce, u64 first) { return Vector{nonce, first}; }
constexpr Vector counter_step() { return Vector{0, 1}; }
inline Vector swap_bytes(Vector v) {
    return (Vector)_mm_shuffle_epi8((__m128i)v, _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
}
inline Vector encrypt_round(Vector v, Vector key) { return (Vector)_mm_aesenc_si128((__m128i)v, (__m128i)key); }
inline Vector encrypt_last(Vector v, Vector key) { return (Vector)_mm_aesenclast_si128((__m128i)v, (__m128i)key); }

#include "aes_stream.h"

}  // namespace

void aes_ni(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out) {
    stream(key, nonce, first, n, out);
}

void expand_key(const u8* key, Schedule& schedule) { round_keys(key, reinterpret_cast<__m128i*>(schedule.keys)); }

// The key schedule of AES-128 by AES-NI.
#pragma once
#include <immintrin.h>

#include "words.h"

namespace {

template <int CONSTANT>
inline __m128i next_round_key(__m128i key) {
    __m128i made = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, CONSTANT), 0xFF);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, made);
}

inline void round_keys(const u8* key, __m128i* keys) {
    keys[0] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key));
    keys[1] = next_round_key<0x01>(keys[0]);
    keys[2] = next_round_key<0x02>(keys[1]);
    keys[3] = next_round_key<0x04>(keys[2]);
    keys[4] = next_round_key<0x08>(keys[3]);
    keys[5] = next_round_key<0x10>(keys[4]);
    keys[6] = next_round_key<0x20>(keys[5]);
    keys[7] = next_round_key<0x40>(keys[6]);
    keys[8] = next_round_key<0x80>(keys[7]);
    keys[9] = next_round_key<0x1B>(keys[8]);
    keys[10] = next_round_key<0x36>(keys[9]);
}

}  // namespace

// The stream itself, for any vector of one, two or four blocks. The including file defines Vector (with operators),
// VECTOR_BLOCKS, broadcast(), first_counter(), swap_bytes(), encrypt_round() and encrypt_last().

constexpr int IN_FLIGHT = 8;  // vectors at once, to hide the latency of a round
constexpr size_t STEP_WORDS = size_t(IN_FLIGHT) * VECTOR_BLOCKS * 2;

template <Stream HOW>
inline Vector joined(Vector r, const u64* x) {
    if constexpr (HOW == Stream::alone) return r;
    Vector word = *reinterpret_cast<const LooseVector*>(x);
    return HOW == Stream::add ? word + r : word - r;
}

template <Stream HOW>
inline void step(const Vector* keys, Vector counter, const u64* x, u64* out) {
    constexpr Vector blocks = counter_step();
    Vector v[IN_FLIGHT];
#pragma GCC unroll 8
    for (int i = 0; i < IN_FLIGHT; i++) {
        v[i] = swap_bytes(counter) ^ keys[0];
        counter += blocks;
    }
#pragma GCC unroll 10
    for (int round = 1; round < ROUNDS; round++)
#pragma GCC unroll 8
        for (int i = 0; i < IN_FLIGHT; i++) v[i] = encrypt_round(v[i], keys[round]);
#pragma GCC unroll 8
    for (int i = 0; i < IN_FLIGHT; i++) {
        size_t at = size_t(i) * VECTOR_BLOCKS * 2;
        *reinterpret_cast<LooseVector*>(out + at) = joined<HOW>(encrypt_last(v[i], keys[ROUNDS]), x + at);
    }
}

template <Stream HOW>
void stream(const u8* key, u64 nonce, u64 first, const u64* x, size_t n, u64* out) {
    __m128i narrow[ROUNDS + 1];
    round_keys(key, narrow);
    Vector keys[ROUNDS + 1];
    for (int i = 0; i <= ROUNDS; i++) keys[i] = broadcast(narrow[i]);
    Vector counter = first_counter(nonce, first);
    constexpr Vector blocks = counter_step();
    size_t at = 0;
    for (; at + STEP_WORDS <= n; at += STEP_WORDS) {
        step<HOW>(keys, counter, x + at, out + at);
        counter += blocks * IN_FLIGHT;
    }
    if (at == n) return;
    u64 from[STEP_WORDS] = {}, to[STEP_WORDS];
    if (HOW != Stream::alone)
        for (size_t i = at; i < n; i++) from[i - at] = x[i];
    step<HOW>(keys, counter, from, to);
    for (size_t i = at; i < n; i++) out[i] = to[i - at];
}

inline void any_stream(const u8* key, u64 nonce, u64 first, Stream how, const u64* x, size_t n, u64* out) {
    if (how == Stream::alone) stream<Stream::alone>(key, nonce, first, out, n, out);
    else if (how == Stream::add) stream<Stream::add>(key, nonce, first, x, n, out);
    else stream<Stream::subtract>(key, nonce, first, x, n, out);
}

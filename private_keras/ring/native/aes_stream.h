// The stream itself, for any vector of one, two or four blocks. The including file defines Vector (with operators),
// VECTOR_BLOCKS, broadcast(), first_counter(), swap_bytes(), encrypt_round() and encrypt_last().

constexpr int ROUNDS = 10;
constexpr int IN_FLIGHT = 8;  // vectors at once, to hide the latency of a round
constexpr size_t STEP_WORDS = size_t(IN_FLIGHT) * VECTOR_BLOCKS * 2;

inline void step(const Vector* keys, Vector counter, u64* out) {
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
        *reinterpret_cast<LooseVector*>(out + at) = encrypt_last(v[i], keys[ROUNDS]);
    }
}

void stream(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out) {
    Vector keys[ROUNDS + 1];
    for (int i = 0; i <= ROUNDS; i++) keys[i] = broadcast(reinterpret_cast<const __m128i*>(key.keys)[i]);
    Vector counter = first_counter(nonce, first);
    constexpr Vector blocks = counter_step();
    size_t at = 0;
    for (; at + STEP_WORDS <= n; at += STEP_WORDS) {
        step(keys, counter, out + at);
        counter += blocks * IN_FLIGHT;
    }
    if (at == n) return;
    u64 to[STEP_WORDS];
    step(keys, counter, to);
    for (size_t i = at; i < n; i++) out[i] = to[i - at];
}

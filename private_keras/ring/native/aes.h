// AES-128 in counter mode (FIPS 197, NIST SP 800-38A).
#pragma once
#include "words.h"

// A key's round keys, made once for a call that reads its stream in many pieces.
struct Schedule {
    alignas(64) u8 keys[11 * 16];
};
typedef void (*Expand)(const u8* key, Schedule& schedule);
void expand_key(const u8* key, Schedule& schedule);

// n words of the stream of (key, nonce) from block `first` on: block j is AES(key, nonce || j), both as 64 bits big
// endian, its bytes read as two little-endian words.
typedef void (*Generator)(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out);

void aes_ni(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out);
void aes_vaes(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out);
void aes_vaes512(const Schedule& key, u64 nonce, u64 first, size_t n, u64* out);

// Words that a step reads once: an array, or a part of a stream that is made where it is used.
struct Source {
    const u64* words = nullptr;  // null: the stream
    Generator make = nullptr;
    const Schedule* key = nullptr;
    u64 nonce = 0, first = 0;  // `first` counts words
};

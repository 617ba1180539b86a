// AES-128 in counter mode (FIPS 197, NIST SP 800-38A), added to a stream of words as it is made.
#pragma once
#include "words.h"

enum class Stream { alone, add, subtract };

// out[i] = r[i], x[i] + r[i] or x[i] - r[i], where r is the stream of (key, nonce) from block `first` on: block j is
// AES(key, nonce || j), both as 64 bits big endian, its bytes read as two little-endian words.
typedef void (*Generator)(const u8* key, u64 nonce, u64 first, Stream how, const u64* x, size_t n, u64* out);

void aes_ni(const u8* key, u64 nonce, u64 first, Stream how, const u64* x, size_t n, u64* out);
void aes_vaes(const u8* key, u64 nonce, u64 first, Stream how, const u64* x, size_t n, u64* out);
void aes_vaes512(const u8* key, u64 nonce, u64 first, Stream how, const u64* x, size_t n, u64* out);

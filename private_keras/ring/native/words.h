// Words, planes and blocks: the layout that kernel.py defines. Only types and constants, so that no code of one
// instruction set can be linked into another.
#pragma once
#include <cstddef>
#include <cstdint>

typedef uint64_t u64;
typedef uint8_t u8;

constexpr size_t WORD_BITS = 64;
constexpr size_t BLOCK_WORDS = 16;                        // words of one plane in one block
constexpr size_t BLOCK_ELEMENTS = BLOCK_WORDS * WORD_BITS;

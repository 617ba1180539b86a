// Scratch memory of the calling thread.
#pragma once
#include "words.h"

// At least `words` words, aligned to 64 bytes, of this thread; the same memory again for the same slot (0 to 3).
u64* scratch(int slot, size_t words);

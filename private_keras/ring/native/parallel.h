// Threads, shared by all instruction sets.
#pragma once
#include <functional>

#include "words.h"

// Runs work(first, last) over pieces of 0 .. count-1, cut at multiples of `grain`, on up to `threads` threads.
void parallel(int threads, size_t count, size_t grain, const std::function<void(size_t, size_t)>& work);

// The object that Python holds: one instruction set, one generator, a number of threads. Its methods check the length
// of every array, take raw pointers, and let go of the GIL before they work.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

#include "arrays.h"
#include "dispatch.h"
#include "parallel.h"

namespace nb = nanobind;

struct Engine {
    const Table& table;
    Generator generator;  // null: Python makes the stream with OpenSSL
    Expand expand;
    std::string generator_name;
    int threads;

    // Runs a loop over all blocks of n elements.
    template <class Work>
    void over_blocks(size_t n, const Work& work) const {
        // A thread costs some 20 microseconds: not worth it for less than 64 blocks.
        parallel(threads, (n + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS, 64, work);
    }
};

inline size_t plane_words(size_t n) { return (n + WORD_BITS - 1) / WORD_BITS; }

template <class Array>
void expect_words(const Array& array, size_t words, const char* what) {
    if (array.size() != words)
        throw Refused(std::string(what) + ": expected " + std::to_string(words) + " words. Received: " +
                      std::to_string(array.size()));
}

inline void expect(bool holds, const char* message) {
    if (!holds) throw Refused(message);
}

// Words that a step reads once: an array, or (key, nonce, first word, number of words) of a stream.
struct Words {
    Source source;
    size_t size = 0;
    Words(const Engine& engine, nb::handle from);
    Words(const Words&) = delete;  // `source` points into it

private:
    In array;
    Schedule schedule;
};

inline void expect_words(const Words& words, size_t count, const char* what) {
    if (words.size != count)
        throw Refused(std::string(what) + ": expected " + std::to_string(count) + " words. Received: " +
                      std::to_string(words.size));
}

inline void expect_party(int party) { expect(party == 0 || party == 1, "an evaluator is party 0 or 1"); }

void bind_bits(nb::class_<Engine>& engine);
void bind_memory(nb::module_& module);
void bind_comparison(nb::class_<Engine>& engine);
void bind_steps(nb::class_<Engine>& engine);
void bind_functions(nb::class_<Engine>& engine);

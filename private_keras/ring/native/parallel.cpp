#include "parallel.h"
#include "scratch.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

void parallel(int threads, size_t count, size_t grain, const std::function<void(size_t, size_t)>& work) {
    size_t pieces = (count + grain - 1) / grain;
    size_t workers = std::min<size_t>(threads > 1 ? size_t(threads) : 1, pieces);
    if (workers <= 1) {
        if (count) work(0, count);
        return;
    }
    std::exception_ptr failure;
    std::mutex lock;
    auto piece = [&](size_t worker) {
        size_t first = pieces * worker / workers * grain;
        size_t last = std::min(count, pieces * (worker + 1) / workers * grain);
        try {
            work(first, last);
        } catch (...) {
            std::lock_guard<std::mutex> guard(lock);
            failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(workers - 1);
    size_t started = 1;
    try {
        for (; started < workers; started++) others.emplace_back(piece, started);
    } catch (const std::exception&) {
        // No further thread to be had: this one does the rest.
    }
    piece(0);
    for (size_t worker = started; worker < workers; worker++) piece(worker);
    for (auto& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

namespace {

struct Buffer {
    u64* data = nullptr;
    size_t words = 0;
    ~Buffer() { std::free(data); }
};

}  // namespace

u64* scratch(int slot, size_t words) {
    static thread_local Buffer buffers[4];
    Buffer& buffer = buffers[slot];
    if (buffer.words < words) {
        std::free(buffer.data);
        buffer.words = 0;
        size_t rounded = (words + 7) / 8 * 8;
        buffer.data = static_cast<u64*>(std::aligned_alloc(64, rounded * sizeof(u64)));
        if (!buffer.data) throw std::bad_alloc();
        buffer.words = rounded;
    }
    return buffer.data;
}

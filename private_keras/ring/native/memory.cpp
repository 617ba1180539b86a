#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace {

// malloc does well below this; above, it soon returns memory to the system, and every page is faulted in anew.
constexpr size_t LARGE = size_t(64) << 10;
constexpr size_t LINE = 64, PAGE = 4096, HUGE_PAGE = size_t(2) << 20;
// Address space that is set aside at a time; it becomes memory where it is touched.
constexpr size_t REGION = size_t(1) << 30;
constexpr size_t SLACK = size_t(8) << 20;

// Stands right before an array's first byte.
struct alignas(16) Head {
    size_t bytes;  // that the array may use
    size_t taken;  // of the pool, with the line that holds the head; 0 where malloc made the array
};
static_assert(sizeof(Head) == 16, "arrays of malloc keep its alignment");

inline Head* head_of(void* data) { return static_cast<Head*>(data) - 1; }

struct Free {
    size_t bytes;
    size_t freed_at;
    bool touched;  // the system has put memory behind it
};

inline uintptr_t round_up(uintptr_t x, size_t to) { return (x + to - 1) / to * to; }

// First fit by address, neighbours merged: arrays stay close together whatever their sizes. What is touched never makes
// the process larger than its arrays alone made it lately, but for an eighth and some slack.
class Pool {
  public:
    // Memory of `bytes` bytes, a multiple of LINE; `fresh` if the system has cleared all of it.
    void* take(size_t bytes, bool& fresh) {
        std::lock_guard<std::mutex> guard(lock);
        uintptr_t at = fit(bytes);
        if (!at) {
            if (!reserve(std::max(bytes, REGION)) && !reserve(bytes)) return nullptr;
            at = fit(bytes);
        }
        used += bytes;
        peak = std::max(peak, used);
        fresh = true;
        size_t left = bytes;
        for (auto range = free.find(at); left; range = free.find(at + (bytes - left))) {
            auto [start, found] = *range;
            size_t part = std::min(left, found.bytes);
            free.erase(range);
            if (part < found.bytes) free[start + part] = {found.bytes - part, found.freed_at, found.touched};
            if (found.touched) touched_free -= part;
            fresh = fresh && !found.touched;
            left -= part;
        }
        size_t highest = std::max(peak, last_peak), bound = highest + highest / 8 + SLACK;
        while (used + touched_free > bound && touched_free) discard_oldest();
        return reinterpret_cast<void*>(at);
    }

    void give(void* memory, size_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        used -= bytes;
        touched_free += bytes;
        put(uintptr_t(memory), {bytes, ++clock, true});
    }

    void tend() {
        std::lock_guard<std::mutex> guard(lock);
        while (touched_free && oldest()->second.freed_at <= tended) discard_oldest();
        tended = clock;
        last_peak = peak;
        peak = used;
    }

    MemoryHeld held() {
        std::lock_guard<std::mutex> guard(lock);
        return {used, touched_free};
    }

  private:
    typedef std::map<uintptr_t, Free> Ranges;

    // The lowest address from which `bytes` are free, over neighbouring ranges; 0 if there is none.
    uintptr_t fit(size_t bytes) {
        uintptr_t start = 0, end = 0;
        for (auto& [at, range] : free) {
            if (at != end) start = at;
            end = at + range.bytes;
            if (end - start >= bytes) return start;
        }
        return 0;
    }

    bool reserve(size_t bytes) {
        size_t length = round_up(bytes, HUGE_PAGE) + HUGE_PAGE;
        void* got = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED) return false;
        // Both are advice, and may fail: fewer faults and translation misses; shares are not for core files.
        madvise(got, length, MADV_HUGEPAGE);
        madvise(got, length, MADV_DONTDUMP);
        put(round_up(uintptr_t(got), HUGE_PAGE), {round_up(bytes, HUGE_PAGE), 0, false});
        return true;
    }

    // Adds a range, merged with neighbours of its kind.
    void put(uintptr_t at, Free range) {
        auto next = free.lower_bound(at);
        if (next != free.end() && next->first == at + range.bytes && next->second.touched == range.touched) {
            range = {range.bytes + next->second.bytes, std::max(range.freed_at, next->second.freed_at), range.touched};
            next = free.erase(next);
        }
        if (next != free.begin()) {
            auto& [before_at, before] = *std::prev(next);
            if (before_at + before.bytes == at && before.touched == range.touched) {
                before = {before.bytes + range.bytes, std::max(before.freed_at, range.freed_at), range.touched};
                return;
            }
        }
        free.emplace(at, range);
    }

    Ranges::iterator oldest() {
        auto found = free.end();
        for (auto range = free.begin(); range != free.end(); ++range)
            if (range->second.touched && (found == free.end() || range->second.freed_at < found->second.freed_at))
                found = range;
        return found;
    }

    // Gives the memory behind the range that was longest unused back to the system; its ends share pages with arrays.
    void discard_oldest() {
        auto range = oldest();
        auto [at, found] = *range;
        free.erase(range);
        touched_free -= found.bytes;
        uintptr_t end = at + found.bytes, first = round_up(at, PAGE), last = end / PAGE * PAGE;
        if (first < last) {
            void* pages = reinterpret_cast<void*>(first);
            // The system keeps what is locked.
            if (madvise(pages, last - first, MADV_DONTNEED) != 0) std::memset(pages, 0, last - first);
        }
        // Those ends are not clear. They are too small to count, but `fresh` memory must be.
        std::memset(reinterpret_cast<void*>(at), 0, std::min(first, end) - at);
        if (last >= first) std::memset(reinterpret_cast<void*>(last), 0, end - last);
        put(at, {found.bytes, found.freed_at, false});
    }

    std::mutex lock;
    Ranges free;
    size_t used = 0, touched_free = 0, peak = 0, last_peak = 0;
    size_t clock = 0, tended = 0;
};

Pool& pool() {
    // Arrays may outlive everything static.
    static Pool* one = new Pool;
    return *one;
}

}  // namespace

void* take_memory(size_t bytes, bool cleared) noexcept {
    if (bytes <= LARGE) {
        Head* head = static_cast<Head*>(cleared ? std::calloc(1, sizeof(Head) + bytes) : std::malloc(sizeof(Head) + bytes));
        if (!head) return nullptr;
        *head = {bytes, 0};
        return head + 1;
    }
    if (bytes > SIZE_MAX / 2) return nullptr;
    bool fresh;
    size_t taken = LINE + round_up(bytes, LINE);
    char* memory = static_cast<char*>(pool().take(taken, fresh));
    if (!memory) return nullptr;
    void* data = memory + LINE;
    *head_of(data) = {taken - LINE, taken};
    if (cleared && !fresh) std::memset(data, 0, bytes);
    return data;
}

void* resize_memory(void* data, size_t bytes) noexcept {
    if (!data) return take_memory(bytes, false);
    Head* head = head_of(data);
    if (!head->taken && bytes <= LARGE) {
        head = static_cast<Head*>(std::realloc(static_cast<void*>(head), sizeof(Head) + bytes));
        if (!head) return nullptr;
        head->bytes = bytes;
        return head + 1;
    }
    if (head->taken && bytes <= head->bytes && bytes > head->bytes / 2) return data;
    void* moved = take_memory(bytes, false);
    if (!moved) return nullptr;
    std::memcpy(moved, data, std::min(bytes, head->bytes));
    release_memory(data);
    return moved;
}

void release_memory(void* data) noexcept {
    if (!data) return;
    Head* head = head_of(data);
    if (head->taken) pool().give(static_cast<char*>(data) - LINE, head->taken);
    else std::free(head);
}

void tend_memory() noexcept { pool().tend(); }

MemoryHeld memory_held() noexcept { return pool().held(); }

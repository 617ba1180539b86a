// Memory of arrays: freed blocks are kept for the next arrays.
#pragma once
#include <cstddef>

// All may be called from any thread. Memory is not cleared, unless `cleared` asks for it; null where there is none.
void* take_memory(size_t bytes, bool cleared) noexcept;
void* resize_memory(void* data, size_t bytes) noexcept;
void release_memory(void* data) noexcept;

// Gives back to the system what was kept and not used since the last call. To be called now and then.
void tend_memory() noexcept;

// Bytes of large blocks: in arrays now, and kept.
struct MemoryHeld {
    size_t used, kept;
};
MemoryHeld memory_held() noexcept;

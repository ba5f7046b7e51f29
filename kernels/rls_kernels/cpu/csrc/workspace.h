// Scratch memory of one call.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace rls::RLS_ISA {

// Key-value heads whose packed operands stand at once: enough to give every thread a task, and beyond that no more
// than fit these bytes.
inline int64_t heads_at_once(int64_t heads, int64_t bytes_per_head, int64_t tasks_per_head, int64_t threads) {
    constexpr int64_t BYTES = 64 << 20;
    const int64_t for_memory = BYTES / bytes_per_head;
    const int64_t for_threads = (threads + tasks_per_head - 1) / tasks_per_head;
    const int64_t wanted = for_memory > for_threads ? for_memory : for_threads;
    return wanted < heads ? wanted : heads;
}

// Uninitialised, aligned to a cache line, freed with its scope; null where memory ran out.
template <class T>
class Workspace {
  public:
    explicit Workspace(int64_t count)
        : data_(static_cast<T*>(aligned_alloc(64, (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64 + 64))) {}
    ~Workspace() { free(data_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    explicit operator bool() const { return data_ != nullptr; }
    T* operator+(int64_t offset) const { return data_ + offset; }

  private:
    T* data_;
};

}  // namespace rls::RLS_ISA

// Scratch memory of one call.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace rls::RLS_ISA {

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

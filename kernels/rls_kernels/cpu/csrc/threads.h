// Threads: torch's own OpenMP team where it is loaded, so that no second runtime spins beside it.
#pragma once

#include <cstdint>

namespace rls {

// Runs body(data) on up to `threads` threads at once, the caller's included, and waits for all.
// A nested or busy OpenMP team may run fewer: body must take its work from a shared counter.
void run_team(int threads, void (*body)(void*), void* data);

// Calls work(index, slot) for every index in [0, count). Threads take indices in order as they come free; `slot` in
// [0, threads) is the calling thread's own, for scratch memory.
template <class Work>
void parallel_for(int threads, int64_t count, const Work& work) {
    struct Shared {
        const Work& work;
        int64_t count, next;
        int slots;
    } shared{work, count, 0, 0};
    auto body = [](void* data) {
        Shared& shared = *static_cast<Shared*>(data);
        const int slot = __atomic_fetch_add(&shared.slots, 1, __ATOMIC_RELAXED);
        for (int64_t i; (i = __atomic_fetch_add(&shared.next, 1, __ATOMIC_RELAXED)) < shared.count;)
            shared.work(i, slot);
    };
    run_team(static_cast<int>(count < threads ? count : threads), body, &shared);
}

}  // namespace rls

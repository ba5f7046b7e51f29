#include "threads.h"

#include <dlfcn.h>

#include <thread>
#include <vector>

namespace rls {
namespace {

using Gomp = void (*)(void (*)(void*), void*, unsigned, unsigned);

// GNU's entry point, which Intel's and LLVM's OpenMP runtimes export as well. torch loads its runtime globally.
Gomp loaded_openmp() {
    static const Gomp found = reinterpret_cast<Gomp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

}  // namespace

void run_team(int threads, void (*body)(void*), void* data) {
    if (threads <= 1) return body(data);
    if (const Gomp parallel = loaded_openmp()) return parallel(body, data, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> team;
    for (int i = 1; i < threads; ++i) team.emplace_back(body, data);
    body(data);
    for (std::thread& member : team) member.join();
}

}  // namespace rls

#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <cstdlib>

namespace rls {
namespace {

using Gomp = void (*)(void (*)(void*), void*, unsigned, unsigned);

// GNU's entry point, which Intel's and LLVM's OpenMP runtimes export as well. torch loads its runtime globally.
Gomp loaded_openmp() {
    static const Gomp found = reinterpret_cast<Gomp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

struct Member {
    pthread_t thread;
    void (*body)(void*);
    void* data;
};

void* run_member(void* member) {
    static_cast<Member*>(member)->body(static_cast<Member*>(member)->data);
    return nullptr;
}

// Plain threads, as few as the system gives: who runs takes the work of those who don't. Not std::thread, whose header
// takes longer to compile than all of this.
void run_threads(int threads, void (*body)(void*), void* data) {
    auto* team = static_cast<Member*>(malloc(static_cast<size_t>(threads) * sizeof(Member)));
    int started = 1;
    for (; team && started < threads; ++started) {
        Member& member = team[started] = {{}, body, data};
        if (pthread_create(&member.thread, nullptr, run_member, &member) != 0) break;
    }
    body(data);
    for (int i = 1; team && i < started; ++i) pthread_join(team[i].thread, nullptr);
    free(team);
}

}  // namespace

void run_team(int threads, void (*body)(void*), void* data) {
    if (threads <= 1) return body(data);
    if (const Gomp parallel = loaded_openmp()) return parallel(body, data, static_cast<unsigned>(threads), 0);
    run_threads(threads, body, data);
}

}  // namespace rls

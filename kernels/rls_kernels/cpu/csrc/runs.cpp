// Which instruction sets this CPU runs, asked by code compiled for every CPU: a question that stood in a kernel's own file
// could itself be compiled to instructions that the CPU lacks.
#include "isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cpuid.h>

namespace rls {

bool runs_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

#ifdef RLS_EMULATE
bool runs_avx512() { return runs_avx2(); }
bool runs_avx512_bf16() { return runs_avx2(); }
#else
bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool runs_avx512_bf16() { return runs_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

#ifndef RLS_WITHOUT_AMX
namespace {

#ifdef RLS_EMULATE
bool permitted() { return true; }
#else
// CPUID leaf 7: AMX-BF16 and AMX-TILE; then the kernel's leave to use the tiles' state.
bool permitted() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 22) || !(d & 1u << 24)) return false;
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

}  // namespace

bool runs_amx_bf16() {
    static const bool works = runs_avx512_bf16() && permitted() && amx_multiplies_rightly();
    return works;
}
#endif

}  // namespace rls

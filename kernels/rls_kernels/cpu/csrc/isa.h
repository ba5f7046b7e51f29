// What one instruction set offers: its kernels by dtype, null where another set does as well.
#pragma once

#include "call.h"

namespace rls {

struct Isa {
    const char* name;
    // Whether this CPU, and the operating system, run it.
    bool (*runs)();
    // Indexed by rls_dtype.
    int32_t (*prefill[3])(const rls_call&);
    int32_t (*decode[3])(const rls_call&);
    int32_t (*backward[3])(const rls_gradient&);
};

// Each asks for what those before it need, too.
bool runs_avx2();
bool runs_avx512();
bool runs_avx512_bf16();
bool runs_amx_bf16();
// Runs AMX instructions: only where the CPU and the operating system have them.
bool amx_multiplies_rightly();

// amx_bf16 is absent where the compiler doesn't know it (RLS_WITHOUT_AMX).
extern const Isa avx2, avx512, avx512_bf16, amx_bf16;

}  // namespace rls

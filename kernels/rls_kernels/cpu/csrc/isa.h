// What one instruction set offers: its kernels by operation and dtype.
#pragma once

#include "call.h"

namespace rls {

struct Isa {
    const char* name;
    // Whether this CPU, and the operating system, run it.
    bool (*runs)();
    // Indexed by rls_operation and rls_dtype: false where a lower set does as well.
    bool has[3][3];
    // Null until rls_install.
    void* kernels[3][3];
};

// Each asks for what those before it need, too.
bool runs_avx2();
bool runs_avx512();
bool runs_avx512_bf16();
bool runs_amx_bf16();
// Runs AMX instructions: only where the CPU and the operating system have them.
bool amx_multiplies_rightly();

}  // namespace rls

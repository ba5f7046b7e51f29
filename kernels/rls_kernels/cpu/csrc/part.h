// A part of the library: one kernel of one instruction set, compiled when it is first needed. build.py's flags name the
// set (RLS_ISA, and what its vectors are written in) and the dtype (RLS_DTYPE).
#pragma once

#include "call.h"

#ifdef RLS_AMX
#include "amx_units.h"
#else
#include "units.h"
#endif

namespace rls::RLS_ISA {

#if defined(RLS_AMX)
using PartUnits = TileUnits;
#elif defined(RLS_AVX512_BF16)
using PartUnits = BFloat16Units;
#else
using PartUnits = Float32Units;
#endif

}  // namespace rls::RLS_ISA

// What each part defines: the function that rls_install takes.
#define RLS_PART extern "C" [[gnu::visibility("default")]] int32_t rls_kernel

#define RLS_ISA avx2_isa
#include "backward.h"
#include "decode.h"
#include "isa.h"
#include "prefill.h"

namespace rls {

using namespace avx2_isa;

const Isa avx2 = {
    "avx2",
    [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); },
    {prefill<Float32Units, RLS_FLOAT32>, prefill<Float32Units, RLS_BFLOAT16>, prefill<Float32Units, RLS_FLOAT16>},
    {decode<Float32Units, RLS_FLOAT32>, decode<Float32Units, RLS_BFLOAT16>, decode<Float32Units, RLS_FLOAT16>},
    {backward<RLS_FLOAT32>, backward<RLS_BFLOAT16>, backward<RLS_FLOAT16>},
};

}  // namespace rls

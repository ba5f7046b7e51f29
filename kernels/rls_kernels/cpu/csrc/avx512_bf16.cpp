#define RLS_ISA avx512_bf16_isa
#define RLS_AVX512
#define RLS_AVX512_BF16
#include "decode.h"
#include "isa.h"
#include "prefill.h"

namespace rls {

using namespace avx512_bf16_isa;

const Isa avx512_bf16 = {
    "avx512_bf16",
    runs_avx512_bf16,
    {nullptr, prefill<BFloat16Units, RLS_BFLOAT16>, nullptr},
    {nullptr, decode<BFloat16Units, RLS_BFLOAT16>, nullptr},
    {nullptr, nullptr, nullptr},
};

}  // namespace rls

#define RLS_ISA avx512_isa
#define RLS_AVX512
#include "backward.h"
#include "decode.h"
#include "isa.h"
#include "prefill.h"

namespace rls {

using namespace avx512_isa;

const Isa avx512 = {
    "avx512",
    runs_avx512,
    {prefill<Float32Units, RLS_FLOAT32>, prefill<Float32Units, RLS_BFLOAT16>, prefill<Float32Units, RLS_FLOAT16>},
    {decode<Float32Units, RLS_FLOAT32>, decode<Float32Units, RLS_BFLOAT16>, decode<Float32Units, RLS_FLOAT16>},
    {backward<RLS_FLOAT32>, backward<RLS_BFLOAT16>, backward<RLS_FLOAT16>},
};

}  // namespace rls

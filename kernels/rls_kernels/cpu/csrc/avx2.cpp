#define RLS_ISA avx2_isa
#include "backward.h"
#include "decode.h"
#include "isa.h"
#include "prefill.h"

namespace rls {

using namespace avx2_isa;

const Isa avx2 = {
    "avx2",
    runs_avx2,
    {prefill<Float32Units, RLS_FLOAT32>, prefill<Float32Units, RLS_BFLOAT16>, prefill<Float32Units, RLS_FLOAT16>},
    {decode<Float32Units, RLS_FLOAT32>, decode<Float32Units, RLS_BFLOAT16>, decode<Float32Units, RLS_FLOAT16>},
    {backward<RLS_FLOAT32>, backward<RLS_BFLOAT16>, backward<RLS_FLOAT16>},
};

}  // namespace rls

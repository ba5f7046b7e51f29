#define RLS_ISA amx_bf16_isa
#define RLS_AVX512
#define RLS_AVX512_BF16
#include "amx_units.h"
#include "isa.h"
#include "prefill.h"

namespace rls {

bool amx_multiplies_rightly() { return amx_bf16_isa::TileUnits::self_test(); }

const Isa amx_bf16 = {
    "amx_bf16",
    runs_amx_bf16,
    {nullptr, amx_bf16_isa::prefill<amx_bf16_isa::TileUnits, RLS_BFLOAT16>, nullptr},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};

}  // namespace rls

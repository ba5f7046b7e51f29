#define RLS_ISA amx_bf16_isa
#include "amx_units.h"
#include "isa.h"
#include "prefill.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cpuid.h>

namespace rls {
namespace {

#ifdef RLS_EMULATE_AMX
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

const Isa amx_bf16 = {
    "amx_bf16",
    [] {
        static const bool works = avx512_bf16.runs() && permitted() && amx_bf16_isa::TileUnits::self_test();
        return works;
    },
    {nullptr, amx_bf16_isa::prefill<amx_bf16_isa::TileUnits, RLS_BFLOAT16>, nullptr},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};

}  // namespace rls

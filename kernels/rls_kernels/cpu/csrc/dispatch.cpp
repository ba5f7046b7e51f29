// The entry points: picks the kernel of an instruction set by name, or of the nearest lower one that has it.
#include <cstring>

#include "isa.h"

namespace rls {
namespace {

// Best first: each runs all that stand after it.
const Isa* const ALL[] = {
#ifndef RLS_WITHOUT_AMX
    &amx_bf16,
#endif
    &avx512_bf16, &avx512, &avx2};

const Isa* const* find(const char* name) {
    for (const Isa* const& isa : ALL)
        if (strcmp(isa->name, name) == 0) return isa->runs() ? &isa : nullptr;
    return nullptr;
}

}  // namespace
}  // namespace rls

using namespace rls;

int32_t rls_forward(const char* name, const rls_call* call) {
    const Isa* const* isa = find(name);
    if (!isa) return RLS_NO_SUCH_ISA;
    const auto table = call->is_decode ? &Isa::decode : &Isa::prefill;
    while (!((*isa)->*table)[call->dtype]) ++isa;
    return ((*isa)->*table)[call->dtype](*call);
}

int32_t rls_backward(const char* name, const rls_gradient* gradient) {
    const Isa* const* isa = find(name);
    if (!isa) return RLS_NO_SUCH_ISA;
    while (!(*isa)->backward[gradient->call.dtype]) ++isa;
    return (*isa)->backward[gradient->call.dtype](*gradient);
}

const char* rls_isa_name(int32_t index) {
    for (const Isa* isa : ALL)
        if (isa->runs() && index-- == 0) return isa->name;
    return nullptr;
}

int64_t rls_call_size() { return sizeof(rls_call); }
int64_t rls_gradient_size() { return sizeof(rls_gradient); }

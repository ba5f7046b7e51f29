// The entry points: picks the kernel of an instruction set by name, or of the nearest lower one that has it.
#include <cfloat>
#include <cstring>
#include <vector>

#include "isa.h"

namespace rls {
namespace {

#define RLS_ALL {true, true, true}
#define RLS_BFLOAT16_ALONE {false, true, false}
#define RLS_NONE {false, false, false}

// Best first: each runs all that stand after it.
Isa ALL[] = {
#ifndef RLS_WITHOUT_AMX
    {"amx_bf16", runs_amx_bf16, {RLS_BFLOAT16_ALONE, RLS_NONE, RLS_NONE}, {}},
#endif
    {"avx512_bf16", runs_avx512_bf16, {RLS_BFLOAT16_ALONE, RLS_BFLOAT16_ALONE, RLS_NONE}, {}},
    {"avx512", runs_avx512, {RLS_ALL, RLS_ALL, RLS_ALL}, {}},
    {"avx2", runs_avx2, {RLS_ALL, RLS_ALL, RLS_ALL}, {}},
};

Isa* find(const char* name) {
    for (Isa& isa : ALL)
        if (strcmp(isa.name, name) == 0) return isa.runs() ? &isa : nullptr;
    return nullptr;
}

// The set that does it where `name` is asked for; null where that doesn't run here.
Isa* find(const char* name, rls_operation operation, int32_t dtype) {
    Isa* isa = find(name);
    if (isa)
        while (!isa->has[operation][dtype]) ++isa;
    return isa;
}

// Calls what was installed for it.
template <class Call>
int32_t run(const char* name, rls_operation operation, int32_t dtype, const Call* call) {
    Isa* isa = find(name, operation, dtype);
    if (!isa) return RLS_NO_SUCH_ISA;
    void* kernel = __atomic_load_n(&isa->kernels[operation][dtype], __ATOMIC_ACQUIRE);
    return kernel ? reinterpret_cast<int32_t (*)(const Call*)>(kernel)(call) : RLS_NOT_INSTALLED;
}

// The greatest absolute value of some float32, as bits, which order alike: infinities and NaN beyond all others. Without
// a way out of the loop, which takes whole vectors on any CPU.
uint32_t greatest(uint32_t found, const float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffff;
        found = bits > found ? bits : found;
    }
    return found;
}

double number_of(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return static_cast<double>(number);
}

// Whether every value that the call reads makes sense, and no product of a strength and a bias leaves float32; what a
// stride of 0 repeats is read once.
bool make_sense(const rls_call& call) {
    const auto unrepeated = [](int64_t size, int64_t stride) { return stride ? size : 1; };
    uint32_t bias = 0, strength = 0;
    for (int64_t b = 0; b < unrepeated(call.batch, call.bias_batch_stride); ++b)
        for (int64_t h = 0; h < unrepeated(call.query_heads, call.bias_head_stride); ++h)
            bias = greatest(bias, call.bias + b * call.bias_batch_stride + h * call.bias_head_stride, call.key_length);
    const int64_t queries = unrepeated(call.query_length, call.strength_query_stride);
    for (int64_t b = 0; b < unrepeated(call.batch, call.strength_batch_stride); ++b)
        for (int64_t h = 0; h < unrepeated(call.query_heads, call.strength_head_stride); ++h)
            for (int64_t q = 0; q < queries; ++q)
                strength = greatest(strength, call.strength + b * call.strength_batch_stride +
                                                  h * call.strength_head_stride + q * call.strength_query_stride, 1);
    // False for NaN, too.
    if (!(number_of(bias) <= FLT_MAX && number_of(strength) <= FLT_MAX)) return false;
    if (number_of(bias) * number_of(strength) > FLT_MAX) return false;
    if (call.key_lengths)
        for (int64_t b = 0; b < call.batch; ++b)
            if (call.key_lengths[b] < 0 || call.key_lengths[b] > call.key_length) return false;
    return true;
}

// Lengths as the kernels read them. One past int32 becomes -1, which no length is.
std::vector<int32_t> narrow(const int64_t* lengths, int64_t count) {
    std::vector<int32_t> narrowed(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const auto length = static_cast<int32_t>(lengths[i]);
        narrowed[static_cast<size_t>(i)] = length == lengths[i] ? length : -1;
    }
    return narrowed;
}

}  // namespace
}  // namespace rls

using namespace rls;

int32_t rls_forward(const char* name, const rls_call* call) {
    return run(name, call->is_decode ? RLS_DECODE : RLS_PREFILL, call->dtype, call);
}

int32_t rls_forward_like(const char* name, const rls_call* like, int32_t options, int32_t threads, void* query,
                         void* key, void* value, void* out, const float* bias, const float* strength, float number,
                         const void* key_lengths) {
    rls_call call = *like;
    call.threads = threads;
    call.query.data = query, call.key.data = key, call.value.data = value, call.out.data = out;
    call.bias = bias;
    call.strength = strength ? strength : &number;
    std::vector<int32_t> narrowed;
    if (key_lengths && options & RLS_WIDE_LENGTHS) {
        narrowed = narrow(static_cast<const int64_t*>(key_lengths), call.batch);
        key_lengths = narrowed.data();
    }
    call.key_lengths = static_cast<const int32_t*>(key_lengths);
    if (options & RLS_CHECK_VALUES && !make_sense(call)) return RLS_SENSELESS_VALUES;
    return rls_forward(name, &call);
}

int32_t rls_backward(const char* name, const rls_gradient* gradient) {
    return run(name, RLS_BACKWARD, gradient->call.dtype, gradient);
}

const char* rls_holder(const char* name, rls_operation operation, rls_dtype dtype) {
    const Isa* isa = find(name, operation, dtype);
    return isa ? isa->name : nullptr;
}

int32_t rls_install(const char* name, rls_operation operation, rls_dtype dtype, void* kernel) {
    Isa* isa = find(name);
    if (!isa || !isa->has[operation][dtype]) return RLS_NO_SUCH_ISA;
    __atomic_store_n(&isa->kernels[operation][dtype], kernel, __ATOMIC_RELEASE);
    return RLS_OK;
}

const char* rls_isa_name(int32_t index) {
    for (const Isa& isa : ALL)
        if (isa.runs() && index-- == 0) return isa.name;
    return nullptr;
}

int64_t rls_call_size() { return sizeof(rls_call); }
int64_t rls_gradient_size() { return sizeof(rls_gradient); }

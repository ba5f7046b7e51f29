// The C ABI: what Python hands over. Mirrored by rls_kernels/cpu/library.py, which checks the sizes at load.
#pragma once

#include <cstdint>

extern "C" {

enum rls_dtype : int32_t { RLS_FLOAT32 = 0, RLS_BFLOAT16 = 1, RLS_FLOAT16 = 2 };
enum rls_operation : int32_t { RLS_PREFILL = 0, RLS_DECODE = 1, RLS_BACKWARD = 2 };

// How much of the row statistics is wanted: nothing, what backward needs, or all of RLS_ROWS. Passes that are joined
// afterwards ask for all rows, of which the unsteered planes may be anything, and at the end to have those rows written
// anew, output and all, whose logarithms were too coarse to be joined.
enum rls_want : int32_t {
    RLS_NO_ROWS = 0,
    RLS_NORMALISERS = 1,
    RLS_ALL_ROWS = 2,
    RLS_STEERED_ROWS = 3,
    RLS_COARSE_ROWS = 4,
};

// Order of the planes in `rows`; each plane is float32 [batch, query_heads, query_length].
enum rls_row : int32_t {
    RLS_LSE = 0,
    RLS_LSE_STEERED = 1,
    RLS_ENTROPY = 2,
    RLS_ENTROPY_STEERED = 3,
    RLS_MEAN_BIAS = 4,
    // log of the divisor in the published form: log sum over visible keys of (A + eps) exp(strength bias).
    RLS_LOG_NORMALISER = 5,
    // KL(A || A').
    RLS_DIVERGENCE = 6,
    RLS_ROWS = 7,
};

// A tensor [batch, heads, length, dim] whose last axis is dense; strides count elements.
struct rls_tensor {
    void* data;
    int64_t batch_stride, head_stride, length_stride;
};

struct rls_call {
    int64_t batch, query_heads, kv_heads, query_length, key_length, head_dim, value_dim;
    int32_t dtype, out_dtype;
    int32_t is_causal, want_rows, threads;
    // Few query rows for each key: stream the keys once, unpacked, split over threads.
    int32_t is_decode;
    float scale, eps;
    rls_tensor query, key, value, out;
    // [batch, query_heads, key_length]; a stride of 0 broadcasts.
    const float* bias;
    int64_t bias_batch_stride, bias_head_stride;
    // [batch, query_heads, query_length]; a stride of 0 broadcasts.
    const float* strength;
    int64_t strength_batch_stride, strength_head_stride, strength_query_stride;
    // [batch], or null where every key counts.
    const int32_t* key_lengths;
    // [RLS_ROWS, batch, query_heads, query_length], or null where want_rows is RLS_NO_ROWS.
    float* rows;
};

// Gradients of one call, whose rows hold at least RLS_NORMALISERS. Bias and strength gradients are dense float32
// [batch, query_heads, length].
struct rls_gradient {
    rls_call call;
    rls_tensor grad_out, grad_query, grad_key, grad_value;
    float* grad_bias;
    float* grad_strength;
};

enum rls_option : int32_t { RLS_CHECK_VALUES = 1, RLS_WIDE_LENGTHS = 2 };

enum rls_status : int32_t {
    RLS_OK = 0,
    RLS_OUT_OF_MEMORY = 1,
    RLS_NO_SUCH_ISA = 2,
    // A bias or strength that isn't finite, or a length that is none of 0 to key_length.
    RLS_SENSELESS_VALUES = 3,
    // The part that holds the kernel hasn't been given to rls_install.
    RLS_NOT_INSTALLED = 4,
};

#pragma GCC visibility push(default)

// `isa` is a name of rls_isa_name; both return an rls_status.
int32_t rls_forward(const char* isa, const rls_call* call);
int32_t rls_backward(const char* isa, const rls_gradient* gradient);

// rls_forward for operands shaped and laid out as those of `like`, which any number of threads may share. A null
// `strength` means `number` everywhere; `key_lengths` are int64 where `options` holds RLS_WIDE_LENGTHS. With
// RLS_CHECK_VALUES each value of bias, strength and lengths is read once before anything runs.
int32_t rls_forward_like(const char* isa, const rls_call* like, int32_t options, int32_t threads, void* query,
                         void* key, void* value, void* out, const float* bias, const float* strength, float number,
                         const void* key_lengths);

// The instruction set whose part does an operation where `isa` is asked for: `isa` itself or a lower one; null where
// `isa` doesn't run here.
const char* rls_holder(const char* isa, rls_operation operation, rls_dtype dtype);

// Has such calls done by `kernel`, the `rls_kernel` of the part that holds it: it takes a pointer to rls_call or, for
// RLS_BACKWARD, to rls_gradient. Any thread may, at any time.
int32_t rls_install(const char* isa, rls_operation operation, rls_dtype dtype, void* kernel);

// The instruction sets that this CPU runs, best first; null past the end.
const char* rls_isa_name(int32_t index);

int64_t rls_call_size();
int64_t rls_gradient_size();

#pragma GCC visibility pop
}

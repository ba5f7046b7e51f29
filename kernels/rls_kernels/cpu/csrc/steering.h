// The steering term: rows of strength * bias along the keys, and the eps sums of the published form.
#pragma once

#include <cmath>

#include "softmax.h"

namespace rls::RLS_ISA {

template <int DTYPE>
inline const char* row_of(const rls_tensor& tensor, int64_t batch, int64_t head, int64_t row) {
    const int64_t element = batch * tensor.batch_stride + head * tensor.head_stride + row * tensor.length_stride;
    return static_cast<const char*>(tensor.data) + element * ELEMENT_BYTES<DTYPE>;
}

inline const float* bias_of(const rls_call& call, int64_t batch, int64_t head) {
    return call.bias + batch * call.bias_batch_stride + head * call.bias_head_stride;
}

inline const float* strength_of(const rls_call& call, int64_t batch, int64_t head) {
    return call.strength + batch * call.strength_batch_stride + head * call.strength_head_stride;
}

// Keys of this batch that aren't padding.
inline int64_t length_of(const rls_call& call, int64_t batch) {
    return call.key_lengths ? call.key_lengths[batch] : call.key_length;
}

// Keys that a query may see are [0, visible): causal is aligned to the bottom right.
inline int64_t visible_to(const rls_call& call, int64_t query, int64_t length) {
    if (!call.is_causal) return length;
    const int64_t seen = query + 1 + call.key_length - call.query_length;
    return seen < 0 ? 0 : seen < length ? seen : length;
}

// Fills the memory of KeyRows: `keys` floats a row, zero past `length`.
inline void steer_keys(float* rows, int64_t keys, const float* bias, float logit_per_bias, int64_t length) {
    float *logit = rows, *unsteer = rows + keys, *bias_row = rows + 2 * keys;
    const vec zero = broadcast(0), none = broadcast(3e38f);
    vec lowest = none;
    for (int64_t j = 0; j < keys; j += LANES) {
        const vec b = j < length ? load_elements<RLS_FLOAT32>(bias + j, length - j) : zero;
        const vec l = mul(b, broadcast(logit_per_bias));
        store(bias_row + j, b);
        store(logit + j, l);
        lowest = min(lowest, first(length - j, l, none));
    }
    rows[3 * keys] = -reduce_max(sub(zero, lowest));
    for (int64_t j = 0; j < keys; j += LANES)
        store(unsteer + j, first(length - j, exp2(sub(broadcast(rows[3 * keys]), load(logit + j))), zero));
}

// Running sums over a prefix of the keys, with w = 2^logit: `weight` = sum w 2^-shift and `values` = sum w v 2^-shift.
// The shift follows the prefix's own maximum, so that one huge later key can't drown the earlier ones.
struct Floor {
    float shift, weight;
    float* values;
    int64_t width;

    void clear() {
        shift = NO_REFERENCE;
        weight = 0;
        memset(values, 0, static_cast<size_t>(width) * sizeof(float));
    }

    void copy(const Floor& other) {
        shift = other.shift;
        weight = other.weight;
        memcpy(values, other.values, static_cast<size_t>(width) * sizeof(float));
    }

    template <int DTYPE>
    void take(const float* logit, const char* value, int64_t value_stride, int64_t value_dim, int64_t from,
              int64_t to) {
        for (int64_t j = from; j < to; ++j) {
            if (logit[j] > shift) {
                const float alpha = exp2f(shift - logit[j]);
                shift = logit[j];
                weight *= alpha;
                for (int64_t i = 0; i < width; ++i) values[i] *= alpha;
            }
            const float w = exp2f(logit[j] - shift);
            weight += w;
            const char* row = value + j * value_stride;
            for (int64_t d = 0; d < value_dim; d += LANES)
                store(values + d, fma(broadcast(w), load_elements<DTYPE>(row + d * ELEMENT_BYTES<DTYPE>, value_dim - d),
                                      load(values + d)));
        }
    }
};

}  // namespace rls::RLS_ISA

// The end of a row: its sums become an output row and the row statistics.
#pragma once

#include <cmath>

#include "steering.h"

namespace rls::RLS_ISA {

// Logarithms (base 2) of a finished row.
struct RowLogs {
    float lse, lse_steered;
};

// Up to this size, in nats, a float32 difference of logarithms is right to 1e-4.
constexpr float MOST_NATS = 1024;

// Whether both are finite, and near enough for their difference to mean something.
inline bool is_fine(RowLogs logs) { return fabsf(logs.lse_steered - logs.lse) <= MOST_NATS * LOG2_E; }

inline RowLogs logs_of(const RowSums& sums) {
    return {sums.plain_reference + log2f(sums.plain), sums.reference + log2f(sums.weight)};
}

// One figure of a row.
inline float& row_at(const rls_call& call, rls_row plane, int64_t batch, int64_t head, int64_t query) {
    return call.rows[((plane * call.batch + batch) * call.query_heads + head) * call.query_length + query];
}

inline void write_output(const rls_call& call, int64_t batch, int64_t head, int64_t query, const float* row) {
    const int64_t offset = batch * call.out.batch_stride + head * call.out.head_stride + query * call.out.length_stride;
    for (int64_t d = 0; d < call.value_dim; d += LANES) {
        const vec a = load(row + d);
        const int64_t left = call.value_dim - d;
        if (call.out_dtype == RLS_FLOAT32)
            store_elements<RLS_FLOAT32>(static_cast<float*>(call.out.data) + offset + d, a, left);
        else {
            void* at = static_cast<uint16_t*>(call.out.data) + offset + d;
            if (call.out_dtype == RLS_BFLOAT16) store_elements<RLS_BFLOAT16>(at, a, left);
            else store_elements<RLS_FLOAT16>(at, a, left);
        }
    }
}

// out = sum A' v. With eps, out = (r out + eps sum w v) / (r + eps sum w) where r = sum A w = 2^(lse_steered - lse);
// `floor` holds both eps sums, or is null. `row` is the unnormalised output, padded to whole vectors. Returns whether it
// came out finite.
inline bool finish_output(float* row, int64_t width, float eps, const RowSums& sums, RowLogs logs, const Floor* floor) {
    float from_row = 1 / sums.weight, from_floor = 0;
    if (floor) {
        const float ratio = exp2f(logs.lse_steered - logs.lse - floor->shift);
        const float divisor = ratio + eps * floor->weight;
        from_row = ratio / divisor / sums.weight;
        from_floor = eps / divisor;
    }
    // NaN where an element is infinite or NaN.
    vec zero = broadcast(0);
    for (int64_t d = 0; d < width; d += LANES) {
        vec a = mul(load(row + d), broadcast(from_row));
        if (floor) a = fma(load(floor->values + d), broadcast(from_floor), a);
        store(row + d, a);
        zero = fma(a, broadcast(0), zero);
    }
    // The second operand wins over NaN.
    return !any_greater(broadcast(-0.5f), max(zero, broadcast(-1)));
}

// Writes the planes that the caller asked for.
inline void write_rows(const rls_call& call, int64_t batch, int64_t head, int64_t query, const RowSums& sums,
                       RowLogs logs, const Floor* floor) {
    float* const rows = &row_at(call, RLS_LSE, batch, head, query);
    const int64_t stride = call.batch * call.query_heads * call.query_length;
    const auto put = [=](rls_row plane, float a) { rows[plane * stride] = a; };
    put(RLS_LSE_STEERED, logs.lse_steered * LN_2);
    if (call.want_rows == RLS_NORMALISERS && !floor) return;
    put(RLS_LSE, logs.lse * LN_2);
    const float ratio = logs.lse_steered - logs.lse;
    float normaliser = ratio;
    if (floor) {
        const float from_floor = log2f(call.eps * floor->weight) + floor->shift;
        const float top = ratio > from_floor ? ratio : from_floor;
        normaliser = top + log2f(exp2f(ratio - top) + exp2f(from_floor - top));
    }
    put(RLS_LOG_NORMALISER, normaliser * LN_2);
    if (call.want_rows == RLS_NORMALISERS) return;
    const float mean_bias = sums.plain_bias / sums.plain;
    const float strength = strength_of(call, batch, head)[query * call.strength_query_stride];
    put(RLS_MEAN_BIAS, mean_bias);
    put(RLS_DIVERGENCE, (logs.lse_steered - logs.lse) * LN_2 - strength * mean_bias);
    put(RLS_ENTROPY_STEERED, LN_2 * (log2f(sums.weight) - sums.weight_score / sums.weight));
    put(RLS_ENTROPY, LN_2 * (log2f(sums.plain) - sums.plain_score / sums.plain));
}

// A row that sees no key: zeros everywhere.
inline void write_unseen(const rls_call& call, int64_t batch, int64_t head, int64_t query, float* row, int64_t width) {
    memset(row, 0, static_cast<size_t>(width) * sizeof(float));
    write_output(call, batch, head, query, row);
    if (!call.rows) return;
    for (int i = 0; i < RLS_ROWS; ++i) row_at(call, static_cast<rls_row>(i), batch, head, query) = 0;
}

}  // namespace rls::RLS_ISA

// The online softmax of one register tile: scores to weights, running sums, and their common reference.
#pragma once

#include "pack.h"

namespace rls::RLS_ISA {

// Rows of the left operand, and of the right one, that one step of a sweep multiplies.
constexpr int BLOCK_ROWS = 48;
constexpr int64_t KEY_BLOCK = 128;
constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.693147181f;
// Scores stand in powers of two. A row's reference follows its maximum only when that has grown by more than this:
// weights stay below 2^8, which costs no accuracy in floating point, and rescaling becomes rare.
constexpr float SLACK = 8;
constexpr float NO_REFERENCE = -3e38f;

static_assert(BLOCK_ROWS % TILE_ROWS == 0 && KEY_BLOCK % TILE == 0);

// Row sums that a pass keeps; each level keeps those before it. With x = steered score - reference, p = 2^x and
// e = p * unsteer (the unsteered weight up to a constant):
enum Sum { WEIGHT, PLAIN, WEIGHT_SCORE, PLAIN_SCORE, PLAIN_BIAS, SUMS };
//  sum p, sum e, sum p x, sum e x, sum e bias.
enum Level { STEERED = 1, BOTH = 2, STATISTICS = 5 };

// Sums of one row over its visible keys; scores in powers of two against their references. The plain score is the
// unsteered one.
struct RowSums {
    float reference, weight, weight_score;
    float plain_reference, plain, plain_score, plain_bias;
};

// What a block of rows carries from tile to tile.
struct RowState {
    alignas(64) float sums[BLOCK_ROWS][SUMS][LANES];
    float reference[BLOCK_ROWS];
    // Keys that the row may see: [0, visible).
    int64_t visible[BLOCK_ROWS];
    // Strength of each row in powers of two, for the layouts where it differs from query to query.
    float logit_per_bias[BLOCK_ROWS];

    // `lowest` is the head's lowest logit.
    RowSums sums_of(int row, float lowest) const {
        const auto total = [&](Sum sum) { return reduce_add(load(sums[row][sum])); };
        const float plain = total(PLAIN), plain_bias = total(PLAIN_BIAS);
        // The unsteered score is x + reference - logit, its own reference that of x less the lowest logit.
        const float plain_score = total(PLAIN_SCORE) - logit_per_bias[row] * plain_bias + lowest * plain;
        return {reference[row], total(WEIGHT), total(WEIGHT_SCORE), reference[row] - lowest,
                plain,          plain_score,   plain_bias};
    }

    void clear() {
        memset(sums, 0, sizeof sums);
        for (float& r : reference) r = NO_REFERENCE;
    }
};

// Vectors along the keys, by key, each padded to whole tiles. `logit` is strength * bias in powers of two, or the bare
// bias where strength differs from row to row. `unsteer` is 2^(lowest logit - logit).
struct KeyRows {
    const float *logit, *unsteer, *bias;
    float lowest;

    KeyRows(const float* rows, int64_t keys)
        : logit(rows), unsteer(rows + keys), bias(rows + 2 * keys), lowest(rows[3 * keys]) {}

    static int64_t size(int64_t keys) { return 3 * keys + LANES; }
};

// A block's running values: output rows [BLOCK_ROWS][output_stride], and the weights of the current block of keys
// [BLOCK_ROWS][weights_stride], of which the first `keys_done` elements of each row stand.
struct Running {
    float* output;
    int64_t output_stride;
    unit* weights;
    int64_t weights_stride, keys_done;
};

template <class Units>
[[gnu::noinline]] inline void raise_reference(RowState& state, int row, float highest, const Running& running) {
    const float before = state.reference[row];
    state.reference[row] = highest;
    float alpha[LANES];
    store(alpha, exp2(broadcast(before - highest)));
    float* sums = &state.sums[row][0][0];
    if (alpha[0] == 0) {
        memset(sums, 0, sizeof state.sums[row]);
    } else {
        const vec factor = broadcast(alpha[0]), shift = broadcast(before - highest);
        const auto at = [&](Sum sum) { return sums + sum * LANES; };
        store(at(WEIGHT_SCORE), fma(load(at(WEIGHT)), shift, load(at(WEIGHT_SCORE))));
        store(at(PLAIN_SCORE), fma(load(at(PLAIN)), shift, load(at(PLAIN_SCORE))));
        for (int sum = 0; sum < SUMS; ++sum) store(sums + sum * LANES, mul(load(sums + sum * LANES), factor));
    }
    float* output = running.output + row * running.output_stride;
    for (int64_t i = 0; i < running.output_stride; ++i) output[i] *= alpha[0];
    Units::scale_weights(running.weights + row * running.weights_stride, running.keys_done, alpha[0]);
}

// Turns the raw products of rows [row, row + TILE_ROWS) and keys [key, key + TILE) into stored weights and sums.
template <class Units, int LEVEL, bool STRENGTH_BY_ROW>
[[gnu::always_inline]] inline void weigh_tile(vec (&score)[TILE_ROWS][TILE_VECTORS], RowState& state, int row,
                                              int64_t key, float scale_log2, const KeyRows& keys,
                                              const Running& running) {
    bool exceeds = false;
    vec highest[TILE_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r) {
        const vec scale = broadcast(scale_log2), strength = broadcast(state.logit_per_bias[row + r]);
        const int64_t visible = state.visible[row + r] - key;
#pragma GCC unroll 4
        for (int v = 0; v < TILE_VECTORS; ++v) {
            const vec logit = load(keys.logit + key + v * LANES);
            if constexpr (STRENGTH_BY_ROW) score[r][v] = fma(score[r][v], scale, mul(strength, logit));
            else score[r][v] = fma(score[r][v], scale, logit);
        }
        if (visible < TILE) [[unlikely]]
#pragma GCC unroll 4
            for (int v = 0; v < TILE_VECTORS; ++v)
                score[r][v] = first(visible - v * LANES, score[r][v], broadcast(-__builtin_inff()));
        highest[r] = score[r][0];
#pragma GCC unroll 4
        for (int v = 1; v < TILE_VECTORS; ++v) highest[r] = max(highest[r], score[r][v]);
        exceeds |= any_greater(highest[r], broadcast(state.reference[row + r] + SLACK));
    }
    if (exceeds) [[unlikely]]
        for (int r = 0; r < TILE_ROWS; ++r) {
            const float top = reduce_max(highest[r]);
            if (top > state.reference[row + r] + SLACK) raise_reference<Units>(state, row + r, top, running);
        }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r) {
        const vec reference = broadcast(state.reference[row + r]);
        float* sums = &state.sums[row + r][0][0];
        vec sum[SUMS], weight[TILE_VECTORS];
#pragma GCC unroll 8
        for (int s = 0; s < LEVEL; ++s) sum[s] = load(sums + s * LANES);
#pragma GCC unroll 4
        for (int v = 0; v < TILE_VECTORS; ++v) {
            const vec x = sub(score[r][v], reference);
            weight[v] = exp2(x);
            sum[WEIGHT] = add(sum[WEIGHT], weight[v]);
            if constexpr (LEVEL == BOTH) {
                sum[PLAIN] = fma(weight[v], load(keys.unsteer + key + v * LANES), sum[PLAIN]);
            } else if constexpr (LEVEL == STATISTICS) {
                // A hidden key's -inf would turn 0 * x into NaN.
                const vec finite = max(x, broadcast(-1e30f));
                const vec plain = mul(weight[v], load(keys.unsteer + key + v * LANES));
                sum[PLAIN] = add(sum[PLAIN], plain);
                sum[WEIGHT_SCORE] = fma(weight[v], finite, sum[WEIGHT_SCORE]);
                sum[PLAIN_SCORE] = fma(plain, finite, sum[PLAIN_SCORE]);
                sum[PLAIN_BIAS] = fma(plain, load(keys.bias + key + v * LANES), sum[PLAIN_BIAS]);
            }
        }
        Units::store_weights(running.weights + (row + r) * running.weights_stride + running.keys_done / Units::DEPTH,
                             weight);
#pragma GCC unroll 8
        for (int s = 0; s < LEVEL; ++s) store(sums + s * LANES, sum[s]);
    }
}

}  // namespace rls::RLS_ISA

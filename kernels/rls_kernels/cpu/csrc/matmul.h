// Register-tiled products of packed operands: sum[row][lane] += left[row][d] * right[d][lane].
#pragma once

#include "units.h"

namespace rls::RLS_ISA {

// Lanes across one full register tile.
constexpr int TILE = TILE_VECTORS * LANES;

// `left` has `left_stride` units a row; `right` has VECTORS * LANES units a step of depth.
template <class Units, int VECTORS>
[[gnu::always_inline]] inline void multiply_tile(vec (&sum)[TILE_ROWS][VECTORS], const unit* left, int64_t left_stride,
                                                 const unit* right, int64_t depth) {
    for (int64_t d = 0; d < depth; ++d, right += VECTORS * LANES) {
        vec b[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) b[v] = load(right + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; ++r) {
            const vec a = broadcast_unit(left + r * left_stride + d);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[r][v] = Units::multiply_add(a, b[v], sum[r][v]);
        }
    }
}

// The same onto float32 rows in memory, `sum_stride` floats apart. The tile starts from zero and joins the running sum at
// its end: one chain of additions over every key would round thousands of times at the size of the whole sum.
template <class Units, int VECTORS>
inline void accumulate_tile(float* sum, int64_t sum_stride, const unit* left, int64_t left_stride, const unit* right,
                            int64_t depth) {
    vec tile[TILE_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) tile[r][v] = broadcast(0);
    multiply_tile<Units, VECTORS>(tile, left, left_stride, right, depth);
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            float* p = sum + r * sum_stride + v * LANES;
            store(p, add(load(p), tile[r][v]));
        }
}

// `vectors` in [1, TILE_VECTORS]: the last tile of a row that isn't a multiple of TILE wide.
template <class Units>
inline void accumulate(int64_t vectors, float* sum, int64_t sum_stride, const unit* left, int64_t left_stride,
                       const unit* right, int64_t depth) {
    static_assert(TILE_VECTORS <= 4);
    switch (vectors) {
        case 1:
            return accumulate_tile<Units, 1>(sum, sum_stride, left, left_stride, right, depth);
        case 2:
            return accumulate_tile<Units, 2>(sum, sum_stride, left, left_stride, right, depth);
        case 3:
            return accumulate_tile<Units, 3>(sum, sum_stride, left, left_stride, right, depth);
        default:
            return accumulate_tile<Units, TILE_VECTORS>(sum, sum_stride, left, left_stride, right, depth);
    }
}

}  // namespace rls::RLS_ISA

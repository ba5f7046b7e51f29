// Pairs of bfloat16, multiplied by AMX a block of rows at a time. The packed layouts are those of BFloat16Units.
#pragma once

#include "amx_tiles.h"
#include "units.h"

namespace rls::RLS_ISA {

struct TileUnits : BFloat16Units {
    static constexpr bool BLOCKWISE = true;

    // sum[row][lane] += left[row][d] * right[d][lane] for `rows` (a multiple of 16) and `vectors` <= 4 times LANES
    // lanes. Strides count floats and units.
    static void accumulate_block(int64_t vectors, float* sum, int64_t sum_stride, int64_t rows, const unit* left,
                                 int64_t left_stride, const unit* right, int64_t depth) {
        TileConfig config;
        const int64_t whole = depth / SIDE * SIDE, rest = depth - whole;
        for (int tile = 0; tile < 6; ++tile) config.shape(tile, SIDE, SIDE * 4);
        config.shape(REST_LEFT, rest ? SIDE : 0, rest * 4);
        config.shape(REST_RIGHT, rest, rest ? SIDE * 4 : 0);
        tile_configure(config);
        for (int64_t row = 0; row < rows; row += SIDE) {
            float* to = sum + row * sum_stride;
            const unit* from = left + row * left_stride;
            switch (vectors) {
                case 1:
                    multiply<1>(to, sum_stride, from, left_stride, right, whole, rest);
                    break;
                case 2:
                    multiply<2>(to, sum_stride, from, left_stride, right, whole, rest);
                    break;
                case 3:
                    multiply<3>(to, sum_stride, from, left_stride, right, whole, rest);
                    break;
                default:
                    multiply<4>(to, sum_stride, from, left_stride, right, whole, rest);
            }
        }
        tile_release();
    }

    // A product whose answer is known, down to a remainder in depth and a narrow strip.
    static bool self_test() {
        constexpr int64_t ROWS = 16, DEPTH = 21;
        alignas(64) static uint16_t left[ROWS][2 * DEPTH], right[DEPTH][2 * LANES];
        alignas(64) static float sum[ROWS][LANES];
        const auto bits = [](float value) {
            uint32_t whole;
            memcpy(&whole, &value, 4);
            return static_cast<uint16_t>(whole >> 16);
        };
        // Small integers: bfloat16 and the float32 sums hold them exactly.
        const auto left_at = [](int64_t r, int64_t k) { return static_cast<float>((3 * r + 5 * k) % 15 - 7); };
        const auto right_at = [](int64_t k, int64_t c) { return static_cast<float>((7 * k + 2 * c) % 13 - 6); };
        for (int64_t k = 0; k < 2 * DEPTH; ++k) {
            for (int64_t r = 0; r < ROWS; ++r) left[r][k] = bits(left_at(r, k));
            for (int64_t c = 0; c < LANES; ++c) right[k / 2][2 * c + k % 2] = bits(right_at(k, c));
        }
        for (auto& row : sum)
            for (float& value : row) value = 1;
        accumulate_block(1, sum[0], LANES, ROWS, reinterpret_cast<const unit*>(left), DEPTH,
                         reinterpret_cast<const unit*>(right), DEPTH);
        for (int64_t r = 0; r < ROWS; ++r)
            for (int64_t c = 0; c < LANES; ++c) {
                float wanted = 1;
                for (int64_t k = 0; k < 2 * DEPTH; ++k) wanted += left_at(r, k) * right_at(k, c);
                if (sum[r][c] != wanted) return false;
            }
        return true;
    }

  private:
    static constexpr int64_t SIDE = 16;
    // Tiles 0 to 3 hold sums.
    enum { LEFT = 4, RIGHT = 5, REST_LEFT = 6, REST_RIGHT = 7 };

    template <int VECTORS>
    static void multiply(float* sum, int64_t sum_stride, const unit* left, int64_t left_stride, const unit* right,
                         int64_t whole, int64_t rest) {
        const int64_t sum_bytes = sum_stride * 4, left_bytes = left_stride * 4, right_bytes = VECTORS * SIDE * 4;
        RLS_TILE_LOAD(0, sum, sum_bytes);
        if constexpr (VECTORS > 1) RLS_TILE_LOAD(1, sum + SIDE, sum_bytes);
        if constexpr (VECTORS > 2) RLS_TILE_LOAD(2, sum + 2 * SIDE, sum_bytes);
        if constexpr (VECTORS > 3) RLS_TILE_LOAD(3, sum + 3 * SIDE, sum_bytes);
#define RLS_STEP(A, B)                                \
    RLS_TILE_LOAD(A, left + d, left_bytes);           \
    RLS_TILE_LOAD(B, at, right_bytes);                \
    RLS_TILE_MULTIPLY(0, A, B);                       \
    if constexpr (VECTORS > 1) {                      \
        RLS_TILE_LOAD(B, at + SIDE, right_bytes);     \
        RLS_TILE_MULTIPLY(1, A, B);                   \
    }                                                 \
    if constexpr (VECTORS > 2) {                      \
        RLS_TILE_LOAD(B, at + 2 * SIDE, right_bytes); \
        RLS_TILE_MULTIPLY(2, A, B);                   \
    }                                                 \
    if constexpr (VECTORS > 3) {                      \
        RLS_TILE_LOAD(B, at + 3 * SIDE, right_bytes); \
        RLS_TILE_MULTIPLY(3, A, B);                   \
    }
        int64_t d = 0;
        for (; d < whole; d += SIDE) {
            const unit* at = right + d * VECTORS * SIDE;
            RLS_STEP(4, 5)
        }
        if (rest) {
            const unit* at = right + d * VECTORS * SIDE;
            RLS_STEP(6, 7)
        }
#undef RLS_STEP
        RLS_TILE_STORE(0, sum, sum_bytes);
        if constexpr (VECTORS > 1) RLS_TILE_STORE(1, sum + SIDE, sum_bytes);
        if constexpr (VECTORS > 2) RLS_TILE_STORE(2, sum + 2 * SIDE, sum_bytes);
        if constexpr (VECTORS > 3) RLS_TILE_STORE(3, sum + 3 * SIDE, sum_bytes);
    }
};

}  // namespace rls::RLS_ISA

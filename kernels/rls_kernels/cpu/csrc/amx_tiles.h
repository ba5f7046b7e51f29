// The eight AMX tile registers: the compiler's intrinsics, or the same in plain C++ where a test asks for it, since the
// layout of operands can then be checked on any machine.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace rls::RLS_ISA {

// The memory layout of LDTILECFG.
struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void shape(int tile, int64_t tile_rows, int64_t tile_row_bytes) {
        rows[tile] = static_cast<uint8_t>(tile_rows);
        row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
    }
};
static_assert(sizeof(TileConfig) == 64);

#ifndef RLS_EMULATE

inline void tile_configure(const TileConfig& config) { _tile_loadconfig(&config); }
inline void tile_release() { _tile_release(); }
#define RLS_TILE_LOAD(tile, data, stride_bytes) _tile_loadd(tile, data, stride_bytes)
#define RLS_TILE_STORE(tile, data, stride_bytes) _tile_stored(tile, data, stride_bytes)
#define RLS_TILE_MULTIPLY(sum, left, right) _tile_dpbf16ps(sum, left, right)

#else

struct EmulatedTiles {
    TileConfig config;
    alignas(64) uint8_t data[8][16][64];
};
inline thread_local EmulatedTiles tiles;

inline void tile_configure(const TileConfig& config) {
    tiles.config = config;
    memset(tiles.data, 0, sizeof tiles.data);
}
inline void tile_release() { memset(static_cast<void*>(&tiles), 0, sizeof tiles); }

inline void emulated_load(int tile, const void* data, int64_t stride_bytes) {
    for (int r = 0; r < tiles.config.rows[tile]; ++r)
        memcpy(tiles.data[tile][r], static_cast<const char*>(data) + r * stride_bytes, tiles.config.row_bytes[tile]);
}

inline void emulated_store(int tile, void* data, int64_t stride_bytes) {
    for (int r = 0; r < tiles.config.rows[tile]; ++r)
        memcpy(static_cast<char*>(data) + r * stride_bytes, tiles.data[tile][r], tiles.config.row_bytes[tile]);
}

inline float bfloat16_at(const uint8_t* row, int index) {
    uint32_t bits = 0;
    memcpy(reinterpret_cast<char*>(&bits) + 2, row + 2 * index, 2);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline void emulated_multiply(int sum, int left, int right) {
    for (int r = 0; r < tiles.config.rows[sum]; ++r)
        for (int k = 0; k < tiles.config.row_bytes[left] / 4; ++k)
            for (int c = 0; c < tiles.config.row_bytes[sum] / 4; ++c) {
                float value;
                memcpy(&value, tiles.data[sum][r] + 4 * c, 4);
                for (int half = 0; half < 2; ++half)
                    value += bfloat16_at(tiles.data[left][r], 2 * k + half) *
                             bfloat16_at(tiles.data[right][k], 2 * c + half);
                memcpy(tiles.data[sum][r] + 4 * c, &value, 4);
            }
}
#define RLS_TILE_LOAD(tile, data, stride_bytes) emulated_load(tile, data, stride_bytes)
#define RLS_TILE_STORE(tile, data, stride_bytes) emulated_store(tile, data, stride_bytes)
#define RLS_TILE_MULTIPLY(sum, left, right) emulated_multiply(sum, left, right)

#endif

}  // namespace rls::RLS_ISA

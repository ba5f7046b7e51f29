// Packed operands. A panel is cut into tiles of TILE lanes; a tile holds, for each step of depth, TILE units side by
// side, so that a register tile reads it from end to end. What lies past the given rows is zero: it may be garbage
// outside.
#pragma once

#include "matmul.h"

namespace rls::RLS_ISA {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Units along one row of `elements`.
template <class Units>
inline int64_t units_of(int64_t elements) {
    return (elements + Units::DEPTH - 1) / Units::DEPTH;
}

template <int DTYPE>
constexpr int ELEMENT_BYTES = DTYPE == RLS_FLOAT32 ? 4 : 2;

// Copies one row of `elements` into units in order, zero-filled to `width` units (a multiple of LANES).
template <class Units, int DTYPE>
inline void pack_row(unit* packed, int64_t width, const char* row, int64_t elements) {
    for (int64_t u = 0; u < width; u += LANES) {
        const int64_t from = u * Units::DEPTH;
        const bool here = from < elements;
        store(packed + u, here ? Units::template load_units<DTYPE>(row + from * ELEMENT_BYTES<DTYPE>, elements - from)
                               : broadcast(0));
    }
}

// One tile whose lanes are rows and whose depth runs along each row: packed[d][lane] = rows[lane][d].
// `rows` <= TILE of them are real; `row_stride` counts bytes.
template <class Units, int DTYPE>
inline void pack_rows_as_lanes(unit* packed, const char* data, int64_t row_stride, int64_t rows, int64_t elements) {
    const int64_t depth = units_of<Units>(elements);
    for (int64_t lane = 0; lane < TILE; lane += LANES) {
        for (int64_t d = 0; d < depth; d += LANES) {
            vec square[LANES];
            const int64_t from = d * Units::DEPTH;
            for (int64_t i = 0; i < LANES; ++i)
                square[i] = lane + i < rows
                                ? Units::template load_units<DTYPE>(
                                      data + (lane + i) * row_stride + from * ELEMENT_BYTES<DTYPE>, elements - from)
                                : broadcast(0);
            transpose(square);
            for (int64_t i = 0; i < LANES && d + i < depth; ++i) store(packed + (d + i) * TILE + lane, square[i]);
        }
    }
}

// One tile, `width` lanes wide, whose depth runs over rows and whose lanes run along each: packed[d][lane] =
// rows[d][lane], neighbouring rows sharing a unit where it holds two. `rows` and `elements` are what is real.
template <class Units, int DTYPE>
inline void pack_rows_as_depth(unit* packed, int64_t width, int64_t depth, const char* data, int64_t row_stride,
                               int64_t rows, int64_t elements) {
    for (int64_t d = 0; d < depth; ++d) {
        const int64_t row = d * Units::DEPTH;
        for (int64_t lane = 0; lane < width; lane += LANES, packed += LANES) {
            const char* at = data + row * row_stride + lane * ELEMENT_BYTES<DTYPE>;
            const bool here = row < rows && lane < elements;
            store(packed, here ? Units::template join_rows<DTYPE>(at, row + 1 < rows ? at + row_stride : nullptr,
                                                                  elements - lane)
                               : broadcast(0));
        }
    }
}

// Rows [start, end) of a panel whose lanes are rows; `start` is a multiple of TILE.
template <class Units, int DTYPE>
inline void pack_lanes_panel(unit* panel, const char* data, int64_t row_stride, int64_t start, int64_t end,
                             int64_t elements) {
    for (int64_t row = start; row < end; row += TILE)
        pack_rows_as_lanes<Units, DTYPE>(panel + row * units_of<Units>(elements), data + row * row_stride, row_stride,
                                         smaller(TILE, end - row), elements);
}

// Rows [start, start + count) of a panel whose depth runs over `panel_rows` rows and whose lanes run along them; rows
// from `end` on are zero. The panel is cut into strips of TILE elements, the last one no wider than its vectors.
template <class Units, int DTYPE>
inline void pack_depth_panel(unit* panel, int64_t panel_rows, const char* data, int64_t row_stride, int64_t start,
                             int64_t count, int64_t end, int64_t elements) {
    const int64_t whole = round_up(elements, LANES);
    for (int64_t strip = 0; strip < whole; strip += TILE) {
        const int64_t width = smaller(TILE, whole - strip);
        pack_rows_as_depth<Units, DTYPE>(
            panel + panel_rows / Units::DEPTH * strip + start / Units::DEPTH * width, width, count / Units::DEPTH,
            data + start * row_stride + strip * ELEMENT_BYTES<DTYPE>, row_stride, end - start, elements - strip);
    }
}

// sum[row][0, width) += weights[row] * rows [start, start + seen(row tile)) of such a panel, for tiles of rows.
template <class Units, class Seen>
inline void accumulate_rows(float* sum, int64_t width, int64_t rows, const unit* weights, int64_t weights_stride,
                            const unit* panel, int64_t panel_rows, int64_t start, const Seen& seen) {
    for (int64_t strip = 0; strip < width; strip += TILE) {
        const int64_t vectors = smaller(TILE, width - strip) / LANES;
        const unit* right = panel + panel_rows / Units::DEPTH * strip + start / Units::DEPTH * vectors * LANES;
        if constexpr (Units::BLOCKWISE) {
            Units::accumulate_block(vectors, sum + strip, width, rows, weights, weights_stride, right,
                                    units_of<Units>(seen(rows - TILE_ROWS)));
            continue;
        }
        for (int64_t row = 0; row < rows; row += TILE_ROWS)
            if (const int64_t depth = seen(row); depth > 0)
                accumulate<Units>(vectors, sum + row * width + strip, width, weights + row * weights_stride,
                                  weights_stride, right, units_of<Units>(depth));
    }
}

}  // namespace rls::RLS_ISA

// Keys and values that a mask hides from some rows of a block but not from others. Their weight is 0, and 0 times NaN
// or an infinity is NaN: where a block holds one, each row sums what it sees alone.
#pragma once

#include "pack.h"

namespace rls::RLS_ISA {

// Whether every element of `rows` rows is finite; `row_stride` counts bytes.
template <int DTYPE>
inline bool all_finite(const char* data, int64_t row_stride, int64_t rows, int64_t elements) {
    const vec zero = broadcast(0);
    vec sum = zero;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t d = 0; d < elements; d += LANES)
            sum = fma(load_elements<DTYPE>(data + r * row_stride + d * ELEMENT_BYTES<DTYPE>, elements - d), zero, sum);
    return reduce_add(sum) == 0;
}

// accumulate_rows for such a block: `seen` says of each single row how many keys it sees from `start` on.
template <class Units, class Seen>
[[gnu::noinline]] void accumulate_seen(float* sum, int64_t width, int64_t rows, const unit* weights,
                                       int64_t weights_stride, const unit* panel, int64_t panel_rows, int64_t start,
                                       const Seen& seen) {
    for (int64_t d = 0; d < width; d += LANES) {
        const int64_t strip = d / TILE * TILE, strip_width = smaller(TILE, width - strip);
        const unit* right =
            panel + panel_rows / Units::DEPTH * strip + start / Units::DEPTH * strip_width + (d - strip);
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t keys = seen(row);
            const unit* left = weights + row * weights_stride;
            vec total = broadcast(0);
            for (int64_t i = 0; i < keys / Units::DEPTH; ++i)
                total = Units::multiply_add(broadcast_unit(left + i), load(right + i * strip_width), total);
            if constexpr (Units::DEPTH > 1)
                if (const int64_t i = keys / Units::DEPTH; keys > 0 && keys % Units::DEPTH)
                    total = Units::multiply_add(broadcast_unit(left + i), Units::first_of_pair(load(right + i * strip_width)),
                                                total);
            float* at = sum + row * width + d;
            store(at, add(load(at), total));
        }
    }
}

}  // namespace rls::RLS_ISA

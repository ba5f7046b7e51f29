// Products with keys and values read in place, as decode streams them: each is loaded once for several query rows,
// while what comes next is asked for.
#pragma once

#include <type_traits>

#include "pack.h"

namespace rls::RLS_ISA {

// Keys, and values, that are taken at a time.
constexpr int64_t CHUNK = 64;
// Query rows that share each loaded key or value.
constexpr int ROWS_AT_ONCE = 4;
constexpr int64_t CACHE_LINE = 64;
// Keys summed between two asks for memory: a burst would fill the core's queue of lines on their way.
constexpr int64_t PORTION = 8;

static_assert(CHUNK % TILE == 0 && CHUNK % PORTION == 0);
static_assert(LANES % ROWS_AT_ONCE == 0);

// Rows of memory that will be read next, asked for while others are multiplied: the arithmetic of several query rows
// takes about as long as the memory does, and neither waits for the other. Rows of 0 bytes where there is nothing to
// ask for.
struct Ahead {
    const char* rows;
    int64_t stride, bytes;

    void ask_for_row(int64_t row) const {
        for (int64_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(rows + row * stride + at);
    }
};

// Calls work(start, whole) for each step of `pair` in [0, elements): `whole` is a constant that says whether all of the
// step is there, so that the common loop has no ends to look after.
template <class Work>
inline void for_pairs(int64_t elements, int64_t pair, const Work& work) {
    int64_t start = 0;
    for (; start + pair <= elements; start += pair) work(start, std::true_type());
    if (start < elements) work(start, std::false_type());
}

// One query row as units, in pairs of vectors like the keys that it will multiply; ROWS_AT_ONCE rows take turns.
template <class Units, int DTYPE>
inline void pack_query(unit* packed, const char* row, int64_t head_dim) {
    constexpr int64_t PAIR = 2 * LANES * Units::DEPTH, TURN = ROWS_AT_ONCE * LANES;
    for (int64_t from = 0; from < head_dim; from += PAIR, packed += 2 * TURN) {
        vec pair[2];
        Units::template load_unit_pair<DTYPE>(pair, row + from * ELEMENT_BYTES<DTYPE>, head_dim - from);
        store(packed, pair[0]);
        store(packed + TURN, pair[1]);
    }
}

// dots[row][key] for the first ROWS of ROWS_AT_ONCE packed rows and the first `keys` rows of `key`; dots past `keys`
// are garbage. LANES sums of each row are reduced together, where none of them waits for another.
template <class Units, int DTYPE, int ROWS>
inline void dot_keys(float (*dots)[CHUNK], const unit* query, const char* key, int64_t key_stride, int64_t keys,
                     int64_t head_dim, const Ahead ahead) {
    constexpr int KEYS = LANES / ROWS;
    constexpr int64_t PAIR = 2 * LANES * Units::DEPTH, PAIR_BYTES = PAIR * ELEMENT_BYTES<DTYPE>;
    for (int64_t start = 0; start < keys; start += LANES) {
        vec sums[ROWS][LANES];
        for (int64_t some = 0; some < LANES; some += KEYS) {
            const char *row[KEYS], *next[KEYS];
            for (int i = 0; i < KEYS; ++i) {
                row[i] = key + smaller(start + some + i, keys - 1) * key_stride;
                next[i] = ahead.rows + (start + some + i) * ahead.stride;
            }
            vec sum[ROWS][KEYS];
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
                for (int i = 0; i < KEYS; ++i) sum[r][i] = broadcast(0);
            for_pairs(head_dim, PAIR, [&](int64_t from, auto whole) {
                const int64_t offset = from * ELEMENT_BYTES<DTYPE>;
                // As many lines as a step takes itself: one every other step where it takes half a line.
                if (offset % CACHE_LINE == 0 && offset < ahead.bytes)
                    for (int64_t line = offset; line < offset + PAIR_BYTES; line += CACHE_LINE)
#pragma GCC unroll 16
                        for (int i = 0; i < KEYS; ++i) __builtin_prefetch(next[i] + line);
                vec pair[KEYS][2];
#pragma GCC unroll 16
                for (int i = 0; i < KEYS; ++i)
                    Units::template load_unit_pair<DTYPE>(pair[i], row[i] + offset, whole ? PAIR : head_dim - from);
                const unit* q = query + from / Units::DEPTH * ROWS_AT_ONCE;
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half)
#pragma GCC unroll 4
                    for (int r = 0; r < ROWS; ++r) {
                        const vec units = hold(load(q + (half * ROWS_AT_ONCE + r) * LANES));
#pragma GCC unroll 16
                        for (int i = 0; i < KEYS; ++i)
                            sum[r][i] = Units::multiply_add(units, pair[i][half], sum[r][i]);
                    }
            });
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
                for (int i = 0; i < KEYS; ++i) sums[r][some + i] = sum[r][i];
            // What rows longer than the keys have left.
            if (const int64_t asked = round_up(head_dim * ELEMENT_BYTES<DTYPE>, CACHE_LINE); asked < ahead.bytes)
                [[unlikely]]
                for (int64_t line = asked; line < ahead.bytes; line += CACHE_LINE)
                    for (int i = 0; i < KEYS; ++i) __builtin_prefetch(next[i] + line);
        }
        for (int r = 0; r < ROWS; ++r) store(dots[r] + start, reduce_each(sums[r]));
    }
}

// output[row][0, 2 * PAIRS * LANES) += sum over keys of weights[row][key] * value[key], in the order of Units' pairs.
template <class Units, int DTYPE, int ROWS, int PAIRS>
inline void add_values(float* output, int64_t output_stride, const unit (*weights)[CHUNK], const char* value,
                       int64_t value_stride, int64_t keys, int64_t elements, const Ahead ahead, int64_t rows_ahead) {
    constexpr int VECTORS = 2 * PAIRS;
    vec sum[ROWS][VECTORS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = load(output + r * output_stride + v * LANES);
    const auto add_keys = [&](auto whole) {
        int64_t asked = 0;
        for (int64_t portion = 0; portion < keys; portion += PORTION) {
            for (; asked * CHUNK < (portion + PORTION) * rows_ahead; ++asked) ahead.ask_for_row(asked);
            for (int64_t key = portion; key < smaller(keys, portion + PORTION); key += Units::DEPTH) {
                const char* row = value + key * value_stride;
                const char* next = key + 1 < keys ? row + value_stride : nullptr;
#pragma GCC unroll 2
                for (int p = 0; p < PAIRS; ++p) {
                    const int64_t offset = 2 * p * LANES * ELEMENT_BYTES<DTYPE>;
                    vec pair[2];
                    Units::template join_row_pair<DTYPE>(pair, row + offset, next ? next + offset : nullptr,
                                                         whole ? 2 * LANES : elements - 2 * p * LANES);
#pragma GCC unroll 4
                    for (int r = 0; r < ROWS; ++r) {
                        const vec weight = broadcast_unit(weights[r] + key / Units::DEPTH);
                        sum[r][2 * p] = Units::multiply_add(weight, pair[0], sum[r][2 * p]);
                        sum[r][2 * p + 1] = Units::multiply_add(weight, pair[1], sum[r][2 * p + 1]);
                    }
                }
            }
        }
    };
    if (elements >= VECTORS * LANES) add_keys(std::true_type());
    else add_keys(std::false_type());
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(output + r * output_stride + v * LANES, sum[r][v]);
}

}  // namespace rls::RLS_ISA

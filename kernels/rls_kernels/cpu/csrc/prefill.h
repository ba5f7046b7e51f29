// Prefill, the forward for many queries: keys and values are packed once for each key-value head, then blocks of query
// rows sweep them, each block's scores, softmax and weighted sum staying in registers and the nearest cache. Of a
// long head, values that packing would make twice as large are packed as they are swept, a block of keys at a time.
#pragma once

#include "exact.h"
#include "hidden.h"
#include "rows.h"
#include "steering.h"
#include "threads.h"
#include "workspace.h"

namespace rls::RLS_ISA {

// One block of queries of one head, ready to sweep the keys.
struct Block {
    const unit* query;
    int64_t query_stride, query_depth;
    const unit* key;
    const unit* value;
    int64_t value_rows;
    // Values that are packed while sweeping: rows of elements, and the panel of KEY_BLOCK rows to pack them into.
    const char* value_data;
    int64_t value_stride, value_dim;
    unit* value_panel;
    // `pack_depth_panel` of the values' dtype, null where `value` is packed already. A pointer, so that the sweep isn't
    // compiled once a dtype.
    void (*pack_values)(unit*, int64_t, const char*, int64_t, int64_t, int64_t, int64_t, int64_t);
    // By KEY_BLOCK of values: whether a mask hides some of it from some rows, and it isn't all finite.
    const uint8_t* taints;
    KeyRows keys;
    float scale_log2;
    int rows;
};

// Whether packed values take more memory than what they are packed from.
template <class Units, int DTYPE>
constexpr bool WIDENED = Units::DEPTH * ELEMENT_BYTES<DTYPE> < static_cast<int>(sizeof(unit));
// Packing while sweeping costs time, so it is done only for a head whose packed keys and values take more than this.
constexpr int64_t PACKED_WHOLE_BYTES = 8 << 20;

template <class Units, int LEVEL, bool STRENGTH_BY_ROW>
[[gnu::noinline]] void sweep_keys(const Block& block, RowState& state, Running running) {
    const int64_t tile_rows = Units::BLOCKWISE ? BLOCK_ROWS : round_up(block.rows, TILE_ROWS);
    const int64_t end = state.visible[block.rows - 1];
    for (int64_t start = 0; start < end; start += KEY_BLOCK) {
        running.keys_done = 0;
        for (int64_t key = start; key < end && key < start + KEY_BLOCK; key += TILE, running.keys_done += TILE) {
            const unit* right = block.key + key * block.query_depth;
            alignas(64) float products[Units::BLOCKWISE ? BLOCK_ROWS : 1][TILE];
            if constexpr (Units::BLOCKWISE) {
                memset(products, 0, sizeof products);
                Units::accumulate_block(TILE_VECTORS, products[0], TILE, BLOCK_ROWS, block.query, block.query_stride,
                                        right, block.query_depth);
            }
            for (int row = 0; row < tile_rows; row += TILE_ROWS) {
                // Blocks are multiplied whole: there, hidden weights must be written as zeros.
                if (!Units::BLOCKWISE && state.visible[row + TILE_ROWS - 1] <= key) continue;
                vec score[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
                for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
                    for (int v = 0; v < TILE_VECTORS; ++v)
                        score[r][v] = Units::BLOCKWISE ? load(products[row + r] + v * LANES) : broadcast(0);
                if constexpr (!Units::BLOCKWISE)
                    multiply_tile<Units>(score, block.query + row * block.query_stride, block.query_stride, right,
                                         block.query_depth);
                weigh_tile<Units, LEVEL, STRENGTH_BY_ROW>(score, state, row, key, block.scale_log2, block.keys,
                                                          running);
            }
        }
        const unit* value = block.value;
        int64_t value_rows = block.value_rows, value_start = start;
        if (block.pack_values) {
            block.pack_values(block.value_panel, KEY_BLOCK, block.value_data + start * block.value_stride,
                              block.value_stride, 0, smaller(KEY_BLOCK, end - start), end - start, block.value_dim);
            value = block.value_panel, value_rows = KEY_BLOCK, value_start = 0;
        }
        if (block.taints[start / KEY_BLOCK]) [[unlikely]] {
            accumulate_seen<Units>(running.output, running.output_stride, block.rows, running.weights,
                                   running.weights_stride, value, value_rows, value_start, [&](int64_t row) {
                                       return smaller(KEY_BLOCK, state.visible[row] - start);
                                   });
            continue;
        }
        accumulate_rows<Units>(running.output, running.output_stride, tile_rows, running.weights,
                               running.weights_stride, value, value_rows, value_start, [&](int64_t row) {
                                   return smaller(KEY_BLOCK, state.visible[row + TILE_ROWS - 1] - start);
                               });
    }
}

template <class Units, int DTYPE>
class Prefill {
  public:
    explicit Prefill(const rls_call& call)
        : call_(call),
          group_(call.query_heads / call.kv_heads),
          blocks_((call.query_length + BLOCK_ROWS - 1) / BLOCK_ROWS),
          keys_(round_up(call.key_length, KEY_BLOCK)),
          query_stride_(round_up(units_of<Units>(call.head_dim), LANES)),
          value_width_(round_up(call.value_dim, LANES)),
          key_units_(keys_ * units_of<Units>(call.head_dim)),
          value_units_(units_of<Units>(keys_) * value_width_),
          packs_while_sweeping_(WIDENED<Units, DTYPE> &&
                                (key_units_ + value_units_) * static_cast<int64_t>(sizeof(unit)) > PACKED_WHOLE_BYTES),
          floors_(call.eps > 0 ? (call.is_causal ? blocks_ : 1) : 0) {}

    int32_t run() {
        const int64_t heads = call_.batch * call_.kv_heads;
        const int64_t value_units = packs_while_sweeping_ ? 0 : value_units_;
        const int64_t packed = (key_units_ + value_units) * static_cast<int64_t>(sizeof(unit));
        const int64_t tasks = group_ * blocks_, wave = heads_at_once(heads, packed, tasks, call_.threads);
        const Workspace<unit> key(wave * key_units_), value(wave * value_units);
        const Workspace<float> key_rows(wave * group_ * key_rows_size());
        const Workspace<float> floors(wave * group_ * floors_ * floor_size() + 1);
        const Workspace<uint8_t> taints(wave * keys_ / KEY_BLOCK);
        const Workspace<char> scratch(call_.threads * scratch_size());
        if (!key || !value || !key_rows || !floors || !taints || !scratch) return RLS_OUT_OF_MEMORY;
        key_ = key + 0, value_ = value + 0, key_rows_ = key_rows + 0, floor_values_ = floors + 0,
        scratch_ = scratch + 0, taints_ = taints + 0;
        for (first_head_ = 0; first_head_ < heads; first_head_ += wave) {
            const int64_t here = smaller(wave, heads - first_head_);
            const int64_t chunks = keys_ / KEY_BLOCK;
            parallel_for(call_.threads, here * (chunks + group_), [&](int64_t i, int) {
                if (i < here * group_) prepare_head(i);
                else pack((i - here * group_) / chunks, (i - here * group_) % chunks * KEY_BLOCK);
            });
            parallel_for(call_.threads, here * tasks, [&](int64_t i, int slot) {
                // Last blocks first: under a causal mask they are the longest.
                attend(i / blocks_, blocks_ - 1 - i % blocks_, slot);
            });
        }
        return RLS_OK;
    }

  private:
    // A scratch slot: the state, query units, weights, output, a floor's values, then a panel of values where they are
    // packed while sweeping.
    int64_t weights_stride() const { return units_of<Units>(KEY_BLOCK); }
    int64_t panel_rows() const { return packs_while_sweeping_ ? KEY_BLOCK : 0; }
    int64_t scratch_size() const {
        const int64_t row = query_stride_ + weights_stride() + value_width_;
        const int64_t state = sizeof(RowState);
        return round_up(state + BLOCK_ROWS * row * 4 + (1 + panel_rows()) * value_width_ * 4, 64);
    }

    // A floor in memory: a line for its two scalars, then its values.
    int64_t key_rows_size() const { return KeyRows::size(keys_); }
    int64_t floor_size() const { return LANES + value_width_; }
    Floor load_floor(int64_t head, int64_t index) const {
        float* at = floor_values_ + (head * floors_ + index) * floor_size();
        return {at[0], at[1], at + LANES, value_width_};
    }

    // Packs keys [start, start + KEY_BLOCK) of the wave's key-value head `local`, and their values.
    void pack(int64_t local, int64_t start) const {
        const int64_t batch = (first_head_ + local) / call_.kv_heads, head = (first_head_ + local) % call_.kv_heads;
        const int64_t end = smaller(length_of(call_, batch), start + KEY_BLOCK);
        if (start >= end) return;
        pack_lanes_panel<Units, DTYPE>(key_ + local * key_units_, row_of<DTYPE>(call_.key, batch, head, 0),
                                       call_.key.length_stride * ELEMENT_BYTES<DTYPE>, start, end, call_.head_dim);
        if (!packs_while_sweeping_)
            pack_depth_panel<Units, DTYPE>(value_ + local * value_units_, keys_,
                                           row_of<DTYPE>(call_.value, batch, head, 0),
                                           call_.value.length_stride * ELEMENT_BYTES<DTYPE>, start, KEY_BLOCK, end,
                                           call_.value_dim);
        // Padding is packed as zeros: without causality no row sees less than another.
        taints_[(local * keys_ + start) / KEY_BLOCK] =
            call_.is_causal && !all_finite<DTYPE>(row_of<DTYPE>(call_.value, batch, head, start),
                                                  call_.value.length_stride * ELEMENT_BYTES<DTYPE>, end - start,
                                                  call_.value_dim);
    }

    // The steering rows of the wave's query head `local`, and its eps sums up to where each block of queries begins.
    void prepare_head(int64_t local) const {
        const auto [batch, head] = query_head(local);
        const int64_t length = length_of(call_, batch);
        float* rows = key_rows_ + local * key_rows_size();
        const float logit_per_bias = by_row() ? 1.0f : *strength_of(call_, batch, head) * LOG2_E;
        steer_keys(rows, keys_, bias_of(call_, batch, head), logit_per_bias, length);
        if (!floors_) return;
        Floor floor = load_floor(local, 0);
        floor.clear();
        int64_t done = 0;
        for (int64_t i = 0;; ++i) {
            const int64_t to = call_.is_causal ? visible_to(call_, i * BLOCK_ROWS, length) : length;
            floor.take<DTYPE>(rows, row_of<DTYPE>(call_.value, batch, head / group_, 0),
                              call_.value.length_stride * ELEMENT_BYTES<DTYPE>, call_.value_dim, done, to);
            done = to;
            floor.values[-LANES] = floor.shift;
            floor.values[1 - LANES] = floor.weight;
            if (i + 1 == floors_) return;
            Floor next = load_floor(local, i + 1);
            next.copy(floor);
            floor = next;
        }
    }

    void attend(int64_t local, int64_t index, int slot) const {
        const auto [batch, head] = query_head(local);
        char* scratch = scratch_ + slot * scratch_size();
        RowState& state = *reinterpret_cast<RowState*>(scratch);
        unit* query = reinterpret_cast<unit*>(scratch + sizeof(RowState));
        unit* weights = query + BLOCK_ROWS * query_stride_;
        float* output = reinterpret_cast<float*>(weights + BLOCK_ROWS * weights_stride());

        const int64_t first = index * BLOCK_ROWS, length = length_of(call_, batch);
        const int rows = static_cast<int>(smaller(BLOCK_ROWS, call_.query_length - first));
        state.clear();
        memset(output, 0, static_cast<size_t>(BLOCK_ROWS * value_width_) * sizeof(float));
        for (int r = 0; r < BLOCK_ROWS; ++r) {
            // Rows past the last one repeat it, so that a tile is always whole.
            const int64_t row = first + smaller(r, rows - 1);
            pack_row<Units, DTYPE>(query + r * query_stride_, query_stride_,
                                   row_of<DTYPE>(call_.query, batch, head, row), call_.head_dim);
            state.visible[r] = visible_to(call_, row, length);
            state.logit_per_bias[r] = strength_of(call_, batch, head)[row * call_.strength_query_stride] * LOG2_E;
        }

        const int64_t kv = local / group_;
        const Block block{query,
                          query_stride_,
                          units_of<Units>(call_.head_dim),
                          key_ + kv * key_units_,
                          packs_while_sweeping_ ? nullptr : value_ + kv * value_units_,
                          keys_,
                          row_of<DTYPE>(call_.value, batch, head / group_, 0),
                          call_.value.length_stride * ELEMENT_BYTES<DTYPE>,
                          call_.value_dim,
                          packs_while_sweeping_ ? reinterpret_cast<unit*>(output + (BLOCK_ROWS + 1) * value_width_)
                                                : nullptr,
                          packs_while_sweeping_ ? &pack_depth_panel<Units, DTYPE> : nullptr,
                          taints_ + kv * keys_ / KEY_BLOCK,
                          KeyRows(key_rows_ + local * key_rows_size(), keys_),
                          call_.scale * LOG2_E,
                          rows};
        sweep(block, state, {output, value_width_, weights, weights_stride(), 0});

        finish(batch, head, first, rows, block.keys, state, output,
               floors_ ? floor_values_ + (local * floors_ + (call_.is_causal ? index : 0)) * floor_size() : nullptr);
    }

    void sweep(const Block& block, RowState& state, const Running& running) const {
        const int level = call_.want_rows >= RLS_ALL_ROWS ? STATISTICS : call_.eps > 0 ? BOTH : STEERED;
        if (by_row()) {
            if (level == STATISTICS) sweep_keys<Units, STATISTICS, true>(block, state, running);
            else sweep_keys<Units, STEERED, true>(block, state, running);
        } else if (level == STATISTICS) sweep_keys<Units, STATISTICS, false>(block, state, running);
        else if (level == BOTH) sweep_keys<Units, BOTH, false>(block, state, running);
        else sweep_keys<Units, STEERED, false>(block, state, running);
    }

    // `stored` is the floor where the block begins, or null; it moves on row by row, as each row sees more keys.
    void finish(int64_t batch, int64_t head, int64_t first, int rows, const KeyRows& keys, RowState& state,
                float* output, const float* stored) const {
        const int64_t length = length_of(call_, batch);
        Floor floor{0, 0, output + BLOCK_ROWS * value_width_, value_width_};
        if (stored) {
            floor.shift = stored[0], floor.weight = stored[1];
            memcpy(floor.values, stored + LANES, static_cast<size_t>(value_width_) * sizeof(float));
        }
        int64_t done = call_.is_causal ? visible_to(call_, first, length) : length;
        for (int r = 0; r < rows; ++r) {
            float* row = output + r * value_width_;
            const int64_t query = first + r, visible = state.visible[r];
            if (visible == 0) {
                write_unseen(call_, batch, head, query, row, value_width_);
                continue;
            }
            if (stored && visible > done) {
                floor.take<DTYPE>(keys.logit, row_of<DTYPE>(call_.value, batch, head / group_, 0),
                                  call_.value.length_stride * ELEMENT_BYTES<DTYPE>, call_.value_dim, done, visible);
                done = visible;
            }
            const RowSums sums = state.sums_of(r, keys.lowest);
            finish_row<DTYPE>(call_, batch, head, query, row, value_width_, sums, stored ? &floor : nullptr);
        }
    }

    bool by_row() const { return call_.strength_query_stride != 0; }

    struct QueryHead {
        int64_t batch, head;
    };
    QueryHead query_head(int64_t local) const {
        const int64_t kv = first_head_ + local / group_;
        return {kv / call_.kv_heads, kv % call_.kv_heads * group_ + local % group_};
    }

    const rls_call& call_;
    const int64_t group_, blocks_, keys_, query_stride_, value_width_, key_units_, value_units_;
    const bool packs_while_sweeping_;
    const int64_t floors_;
    // Of the wave that is standing.
    int64_t first_head_ = 0;
    unit *key_ = nullptr, *value_ = nullptr;
    float *key_rows_ = nullptr, *floor_values_ = nullptr;
    uint8_t* taints_ = nullptr;
    char* scratch_ = nullptr;
};

template <class Units, int DTYPE>
int32_t prefill(const rls_call& call) {
    if (call.want_rows == RLS_COARSE_ROWS) return rewrite_coarse_rows<DTYPE>(call);
    return Prefill<Units, DTYPE>(call).run();
}

}  // namespace rls::RLS_ISA

// Decode, the forward for a handful of query rows: memory sets the pace, so keys and values are read once, in place, by
// all query rows of their group; the keys are split over threads, and the parts joined at the end.
#pragma once

#include "exact.h"
#include "hidden.h"
#include "rows.h"
#include "stream.h"
#include "threads.h"
#include "workspace.h"

namespace rls::RLS_ISA {

constexpr int64_t MAX_DECODE_ROWS = 16;
// Splits are no shorter than this: joining them costs a row of output each.
constexpr int64_t LEAST_SPLIT = 512;

static_assert(MAX_DECODE_ROWS % ROWS_AT_ONCE == 0);

// One row over the keys of one split. Outputs are unnormalised: [value_width] for the row, then as many for its floor.
struct Part {
    RowSums sums;
    float floor_shift, floor_weight;

    void clear() { *this = {{NO_REFERENCE, 0, 0, NO_REFERENCE, 0, 0, 0}, NO_REFERENCE, 0}; }
};

// What steers one row: its bias by key, powers of two for each of it, and the keys [0, visible) that it sees.
struct Steering {
    const float* bias;
    float logit_per_bias;
    int64_t visible;
};

inline void scale_row(float* row, int64_t width, float factor) {
    for (int64_t d = 0; d < width; d += LANES) store(row + d, mul(load(row + d), broadcast(factor)));
}

// Moves a sum's reference, and returns the factor that its other values take.
inline float move_reference(float& reference, float& weight, float* score, float to) {
    const float alpha = exp2f(reference - to);
    if (score) *score = alpha == 0 ? 0 : alpha * (*score + (reference - to) * weight);
    weight *= alpha;
    reference = to;
    return alpha;
}

template <class Units, int DTYPE>
class Decode {
  public:
    explicit Decode(const rls_call& call)
        : call_(call),
          group_(call.query_heads / call.kv_heads),
          rows_(group_ * call.query_length),
          query_stride_(round_up(units_of<Units>(call.head_dim), 2 * LANES)),
          value_width_(round_up(call.value_dim, 2 * LANES)),
          heads_(call.batch * call.kv_heads),
          splits_(larger(1, smaller((4 * call.threads + heads_ - 1) / heads_, call.key_length / LEAST_SPLIT))),
          split_keys_(round_up((call.key_length + splits_ - 1) / splits_, CHUNK)) {}

    int32_t run() {
        const int64_t parts = heads_ * splits_ * rows_;
        const Workspace<Part> part(parts);
        const Workspace<float> output(parts * output_size());
        const Workspace<unit> query(call_.threads * MAX_DECODE_ROWS * query_stride_);
        if (!part || !output || !query) return RLS_OUT_OF_MEMORY;
        part_ = part + 0, output_ = output + 0;
        parallel_for(call_.threads, heads_ * splits_, [&](int64_t i, int slot) {
            attend(i / splits_, i % splits_, query + slot * MAX_DECODE_ROWS * query_stride_);
        });
        parallel_for(call_.threads, heads_ * rows_, [&](int64_t i, int) { join(i / rows_, i % rows_); });
        return RLS_OK;
    }

  private:
    bool needs_plain() const { return call_.eps > 0 || call_.want_rows >= RLS_ALL_ROWS; }
    int64_t output_size() const { return value_width_ * (call_.eps > 0 ? 2 : 1); }
    int64_t part_of(int64_t head, int64_t split, int64_t row) const { return (head * splits_ + split) * rows_ + row; }
    int64_t query_head(int64_t head, int64_t row) const {
        return head % call_.kv_heads * group_ + row / call_.query_length;
    }

    void attend(int64_t head, int64_t split, unit* query) const {
        const int64_t batch = head / call_.kv_heads, kv = head % call_.kv_heads, length = length_of(call_, batch);
        Part* parts = part_ + part_of(head, split, 0);
        float* outputs = output_ + part_of(head, split, 0) * output_size();
        for (int64_t r = 0; r < rows_; ++r) parts[r].clear();
        for (int64_t slot = 0; slot < round_up(rows_, ROWS_AT_ONCE); ++slot) {
            // Rows past the last one repeat it, so that two or three are dotted as cheaply as four.
            const int64_t r = smaller(slot, rows_ - 1);
            pack_query<Units, DTYPE>(query + slot / ROWS_AT_ONCE * ROWS_AT_ONCE * query_stride_ +
                                         slot % ROWS_AT_ONCE * LANES,
                                     row_of<DTYPE>(call_.query, batch, query_head(head, r), r % call_.query_length),
                                     call_.head_dim);
        }
        memset(outputs, 0, static_cast<size_t>(rows_ * output_size()) * sizeof(float));
        Steering steering[MAX_DECODE_ROWS];
        for (int64_t r = 0; r < rows_; ++r) {
            const int64_t q = r % call_.query_length, h = query_head(head, r);
            const float strength = strength_of(call_, batch, h)[q * call_.strength_query_stride];
            steering[r] = {bias_of(call_, batch, h), strength * LOG2_E, visible_to(call_, q, length)};
        }

        alignas(64) float dots[MAX_DECODE_ROWS][CHUNK];
        // A row's weights, then its floor's.
        alignas(64) unit weights[2 * MAX_DECODE_ROWS][CHUNK];
        const int floors = call_.eps > 0 ? 2 : 1;
        const int64_t end = smaller(length, (split + 1) * split_keys_);
        for (int64_t start = split * split_keys_; start < end; start += CHUNK) {
            const int64_t keys = smaller(CHUNK, end - start);
            const char* key = row_of<DTYPE>(call_.key, batch, kv, start);
            const char* value = row_of<DTYPE>(call_.value, batch, kv, start);
            const int64_t key_stride = call_.key.length_stride * ELEMENT_BYTES<DTYPE>;
            const int64_t value_stride = call_.value.length_stride * ELEMENT_BYTES<DTYPE>;
            const int64_t key_bytes = call_.head_dim * ELEMENT_BYTES<DTYPE>;
            const int64_t value_bytes = call_.value_dim * ELEMENT_BYTES<DTYPE>;
            for (int64_t r = 0; r < rows_;) {
                // The first rows ask for what all of them will read.
                const Ahead values{value, value_stride, r == 0 ? value_bytes : 0};
                const unit* q = query + r * query_stride_;
                if (rows_ - r > 1) {
                    dot_keys<Units, DTYPE, ROWS_AT_ONCE>(dots + r, q, key, key_stride, keys, call_.head_dim, values);
                    r += ROWS_AT_ONCE;
                } else {
                    dot_keys<Units, DTYPE, 1>(dots + r, q, key, key_stride, keys, call_.head_dim, values);
                    ++r;
                }
            }
            for (int64_t r = 0; r < rows_; ++r)
                weigh(parts[r], steering[r], outputs + r * output_size(), dots[r], weights + r * floors, start,
                      steering[r].visible - start);
            const Ahead next{key + CHUNK * key_stride, key_stride, start + CHUNK < end ? key_bytes : 0};
            const int64_t all_see = larger(0, smaller(keys, steering[0].visible - start));
            if (!all_finite<DTYPE>(value + all_see * value_stride, value_stride, keys - all_see, call_.value_dim))
                [[unlikely]] {
                for (int64_t r = 0; r < rows_; ++r)
                    add_chunk(outputs + r * output_size(), weights + r * floors, value, value_stride,
                              smaller(keys, steering[r].visible - start), floors, next);
                continue;
            }
            add_chunk(outputs, weights, value, value_stride, keys, rows_ * floors, next);
        }
    }

    // Scores to weights for one row and one chunk, of which the row sees the first `visible` keys.
    void weigh(Part& part, const Steering& steering, float* output, const float* dots, unit (*weights)[CHUNK],
               int64_t start, int64_t visible) const {
        constexpr int VECTORS = CHUNK / LANES;
        const vec hidden = broadcast(-__builtin_inff()), scale = broadcast(call_.scale * LOG2_E);
        const bool whole = visible >= CHUNK;
        const float* biases = steering.bias + start;
        alignas(64) float some[CHUNK];
        if (!whole) {
            memset(some, 0, sizeof some);
            if (visible > 0) memcpy(some, biases, static_cast<size_t>(visible) * sizeof(float));
            biases = some;
        }
        const auto hide = [&](vec (&scores)[VECTORS]) {
            for (int v = 0; v < VECTORS; ++v) scores[v] = first(visible - v * LANES, scores[v], hidden);
        };
        const auto highest_of = [&](const vec (&scores)[VECTORS]) {
            vec top = scores[0];
            for (int v = 1; v < VECTORS; ++v) top = max(top, scores[v]);
            return top;
        };
        const auto bias = [&](int v) { return load(biases + v * LANES); };
        const auto logit = [&](int v) { return mul(bias(v), broadcast(steering.logit_per_bias)); };
        RowSums& sums = part.sums;

        vec score[VECTORS];
        for (int v = 0; v < VECTORS; ++v) score[v] = fma(load(dots + v * LANES), scale, logit(v));
        if (!whole) [[unlikely]] hide(score);
        // References lag as in softmax.h, so that outputs are rarely rescaled.
        if (const vec top = highest_of(score); any_greater(top, broadcast(sums.reference + SLACK))) [[unlikely]]
            scale_row(output, value_width_,
                      move_reference(sums.reference, sums.weight, &sums.weight_score, reduce_max(top)));
        vec total = broadcast(0), weight[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            total = add(total, weight[v] = exp2(sub(score[v], broadcast(sums.reference))));
        Units::template store_weights<VECTORS>(weights[0], weight);
        sums.weight += reduce_add(total);
        // A hidden key's -inf would turn 0 * x into NaN.
        const vec finite = broadcast(-1e30f);
        vec score_sum = broadcast(0);
        // Statistics alone read it.
        if (call_.want_rows >= RLS_ALL_ROWS) {
            for (int v = 0; v < VECTORS; ++v)
                score_sum = fma(weight[v], max(finite, sub(score[v], broadcast(sums.reference))), score_sum);
            sums.weight_score += reduce_add(score_sum);
        }
        if (!needs_plain()) return;

        for (int v = 0; v < VECTORS; ++v) score[v] = mul(load(dots + v * LANES), scale);
        if (!whole) [[unlikely]] hide(score);
        if (const float highest = reduce_max(highest_of(score)); highest > sums.plain_reference)
            sums.plain_bias *= move_reference(sums.plain_reference, sums.plain, &sums.plain_score, highest);
        vec bias_sum = total = score_sum = broadcast(0);
        for (int v = 0; v < VECTORS; ++v) {
            const vec x = sub(score[v], broadcast(sums.plain_reference)), w = exp2(x);
            total = add(total, w);
            score_sum = fma(w, max(finite, x), score_sum);
            bias_sum = fma(w, bias(v), bias_sum);
        }
        sums.plain += reduce_add(total);
        sums.plain_score += reduce_add(score_sum);
        sums.plain_bias += reduce_add(bias_sum);
        if (!(call_.eps > 0)) return;

        for (int v = 0; v < VECTORS; ++v) score[v] = logit(v);
        if (!whole) [[unlikely]] hide(score);
        if (const float highest = reduce_max(highest_of(score)); highest > part.floor_shift)
            scale_row(output + value_width_, value_width_,
                      move_reference(part.floor_shift, part.floor_weight, nullptr, highest));
        total = broadcast(0);
        for (int v = 0; v < VECTORS; ++v)
            total = add(total, weight[v] = exp2(sub(score[v], broadcast(part.floor_shift))));
        Units::template store_weights<VECTORS>(weights[1], weight);
        part.floor_weight += reduce_add(total);
    }

    // outputs[row] += weights[row] * value, for as many rows of [value_width].
    void add_chunk(float* outputs, const unit (*weights)[CHUNK], const char* value, int64_t stride, int64_t keys,
                   int64_t rows, const Ahead& next) const {
        const auto add_rows = [&](auto rows_at_once, int64_t row) {
            constexpr int ROWS = decltype(rows_at_once)::value;
            const auto add_strip = [&](auto pairs, int64_t d) {
                const int64_t offset = d * ELEMENT_BYTES<DTYPE>;
                // The first rows of output ask, each strip of them for its share.
                const int64_t share = d * CHUNK / value_width_, end = (d + 2 * pairs * LANES) * CHUNK / value_width_;
                const Ahead ahead{next.rows + share * next.stride, next.stride, row == 0 ? next.bytes : 0};
                add_values<Units, DTYPE, ROWS, decltype(pairs)::value>(
                    outputs + row * value_width_ + d, value_width_, weights + row, value + offset, stride, keys,
                    call_.value_dim - d, ahead, end - share);
            };
            int64_t d = 0;
            for (; d + TILE <= call_.value_dim; d += TILE)
                add_strip(std::integral_constant<int, TILE_VECTORS / 2>(), d);
            for (; d < value_width_; d += 2 * LANES) add_strip(std::integral_constant<int, 1>(), d);
        };
        int64_t row = 0;
        for (; row + ROWS_AT_ONCE <= rows; row += ROWS_AT_ONCE)
            add_rows(std::integral_constant<int, ROWS_AT_ONCE>(), row);
        // What is left shares each value, too: three query heads to a key head are common.
        if (rows - row == 3) add_rows(std::integral_constant<int, 3>(), row);
        else if (rows - row == 2) add_rows(std::integral_constant<int, 2>(), row);
        else if (rows - row == 1) add_rows(std::integral_constant<int, 1>(), row);
    }

    // Joins a row's parts into the first one, and writes the row.
    void join(int64_t head, int64_t row) const {
        const int64_t batch = head / call_.kv_heads, q = row % call_.query_length, out_head = query_head(head, row);
        Part whole = part_[part_of(head, 0, row)];
        float* output = output_ + part_of(head, 0, row) * output_size();
        RowSums& sums = whole.sums;
        if (visible_to(call_, q, length_of(call_, batch)) == 0)
            return write_unseen(call_, batch, out_head, q, output, value_width_);
        for (int64_t split = 1; split < splits_; ++split) {
            Part part = part_[part_of(head, split, row)];
            const float* other = output_ + part_of(head, split, row) * output_size();
            const Factors steered = meet(sums.reference, sums.weight, &sums.weight_score, part.sums.reference,
                                         part.sums.weight, &part.sums.weight_score);
            add_row(output, other, steered);
            const Factors plain = meet(sums.plain_reference, sums.plain, &sums.plain_score, part.sums.plain_reference,
                                       part.sums.plain, &part.sums.plain_score);
            sums.plain_bias = plain.ours * sums.plain_bias + plain.theirs * part.sums.plain_bias;
            if (!(call_.eps > 0)) continue;
            const Factors floor =
                meet(whole.floor_shift, whole.floor_weight, nullptr, part.floor_shift, part.floor_weight, nullptr);
            add_row(output + value_width_, other + value_width_, floor);
        }
        if constexpr (Units::template EVEN_AND_ODD<DTYPE>) put_in_order(output);
        const Floor floor{whole.floor_shift, whole.floor_weight, output + value_width_, value_width_};
        const Floor* given = call_.eps > 0 ? &floor : nullptr;
        finish_row<DTYPE>(call_, batch, out_head, q, output, value_width_, sums, given);
    }

    struct Factors {
        float ours, theirs;
    };

    // Adds their sum to ours under the higher of the two references.
    static Factors meet(float& reference, float& weight, float* score, float their_reference, float their_weight,
                        float* their_score) {
        const float top = reference > their_reference ? reference : their_reference;
        const Factors factors{move_reference(reference, weight, score, top),
                              move_reference(their_reference, their_weight, their_score, top)};
        weight += their_weight;
        if (score) *score += *their_score;
        return factors;
    }

    void add_row(float* row, const float* other, Factors factors) const {
        for (int64_t d = 0; d < value_width_; d += LANES)
            store(row + d,
                  fma(load(other + d), broadcast(factors.theirs), mul(load(row + d), broadcast(factors.ours))));
    }

    // A joined row and its floor, from even and odd elements.
    void put_in_order(float* row) const {
        for (int64_t d = 0; d < output_size(); d += 2 * LANES) {
            vec even = load(row + d), odd = load(row + d + LANES);
            interleave(even, odd);
            store(row + d, even);
            store(row + d + LANES, odd);
        }
    }

    const rls_call& call_;
    const int64_t group_, rows_, query_stride_, value_width_, heads_, splits_, split_keys_;
    Part* part_ = nullptr;
    float* output_ = nullptr;
};

template <class Units, int DTYPE>
int32_t decode(const rls_call& call) {
    return Decode<Units, DTYPE>(call).run();
}

}  // namespace rls::RLS_ISA

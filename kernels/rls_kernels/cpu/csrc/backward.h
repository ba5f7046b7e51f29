// Backward, recomputing the weights from the saved row logarithms: nothing of size Lq x Lk is ever kept. In float32,
// blocks of queries sweep the keys twice, for their row terms and then for the gradients of query and strength; blocks
// of keys then sweep the queries for those of key, value and bias. No gradient is shared between threads, so results
// don't depend on them.
#pragma once

#include "hidden.h"
#include "steering.h"
#include "threads.h"
#include "workspace.h"

namespace rls::RLS_ISA {

// What one pair of a query and a key adds, with P the weight of the published form and dl, dz the gradients of its
// logit and of its scaled score: P = (A + eps) w / M, dl = P (dP - delta), dz = A (w (dP - delta) / M - gamma), where
// delta = sum P dP and gamma = sum A w (dP - delta) / M.
struct PairGradient {
    vec weight, logit, score;
};

// Of the pairs' queries: saved row logarithms; factors that undo their rounding, so that weights sum to one to the last
// bit; and the two sums above. Without eps the weight is P = e^(score + logit - lse_steered) alone.
struct QueryTerms {
    vec lse, lse_steered, log_normaliser;
    // Without eps: 0 where logits are so large that a score is lost beside them in float64, too, and with it in the
    // output; else 1.
    vec score_counts;
    vec plain_factor, weight_factor, delta, gamma;
};

// Planes of the terms that the first sweep writes, each [batch, query_heads, query_length].
enum TermPlane { PLAIN_FACTOR, WEIGHT_FACTOR, DELTA, GAMMA, TERM_PLANES };

// Differences first, powers of two then: all that a row sees may be suppressed by -3.4e38, which has no room for log2 e.
// And the score last: it is small beside such a logit, and not beside what is left of that less its row's logarithm.
inline vec exp_difference(vec a, vec b) { return exp2(mul(sub(a, b), broadcast(LOG2_E))); }
inline vec weight_of(vec score, vec logit, const QueryTerms& query) {
    return exp2(mul(fma(score, query.score_counts, sub(logit, query.lse_steered)), broadcast(LOG2_E)));
}
inline vec plain_of(vec score, const QueryTerms& query) { return exp_difference(score, query.lse); }
inline vec lift_of(vec logit, const QueryTerms& query) { return exp_difference(logit, query.log_normaliser); }

inline PairGradient pair_gradient(vec score, vec logit, vec grad_weight, const QueryTerms& query, float eps) {
    const vec difference = sub(grad_weight, query.delta);
    if (eps == 0) {
        const vec p = mul(weight_of(score, logit, query), query.weight_factor);
        const vec gradient = mul(p, difference);
        return {p, gradient, gradient};
    }
    const vec a = mul(plain_of(score, query), query.plain_factor), w = mul(lift_of(logit, query), query.weight_factor);
    const vec floored = add(a, broadcast(eps)), g = mul(w, difference);
    return {mul(floored, w), mul(floored, g), mul(a, sub(g, query.gamma))};
}

// A tensor's head, packed in float32 for both kinds of product.
struct Packed {
    unit *lanes, *depth;
};

template <int DTYPE>
class Backward {
    using Units = Float32Units;

  public:
    explicit Backward(const rls_gradient& gradient)
        : g_(gradient),
          call_(gradient.call),
          group_(call_.query_heads / call_.kv_heads),
          queries_(round_up(call_.query_length, KEY_BLOCK)),
          keys_(round_up(call_.key_length, KEY_BLOCK)),
          width_(round_up(call_.head_dim, LANES)),
          value_width_(round_up(call_.value_dim, LANES)) {}

    int32_t run() {
        const int64_t heads = call_.batch * call_.kv_heads;
        const int64_t query_blocks = (call_.query_length + BLOCK_ROWS - 1) / BLOCK_ROWS;
        const int64_t key_blocks = (call_.key_length + BLOCK_ROWS - 1) / BLOCK_ROWS;
        const int64_t packed = keys_ * key_row() + group_ * queries_ * query_row();
        const int64_t wave = heads_at_once(heads, packed * 4, smaller(query_blocks, key_blocks), call_.threads);
        const Workspace<unit> panels(wave * packed);
        const Workspace<float> scratch(call_.threads * scratch_size());
        const Workspace<uint8_t> taints(wave * keys_ / KEY_BLOCK);
        const Workspace<float> terms(TERM_PLANES * call_.batch * call_.query_heads * call_.query_length);
        if (!panels || !scratch || !taints || !terms) return RLS_OUT_OF_MEMORY;
        terms_ = terms + 0, scratch_ = scratch + 0, taints_ = taints + 0;
        key_panels_ = panels + 0;
        query_panels_ = panels + wave * keys_ * key_row();
        for (first_head_ = 0; first_head_ < heads; first_head_ += wave) {
            const int64_t here = smaller(wave, heads - first_head_);
            parallel_for(call_.threads, here * (group_ + 1), [&](int64_t i, int) {
                if (i < here) pack_keys(i);
                else pack_queries(i - here);
            });
            parallel_for(call_.threads, here * group_ * query_blocks, [&](int64_t i, int slot) {
                sweep_keys(i / query_blocks, i % query_blocks * BLOCK_ROWS, scratch_ + slot * scratch_size());
            });
            parallel_for(call_.threads, here * key_blocks, [&](int64_t i, int slot) {
                sweep_queries(i / key_blocks, i % key_blocks * BLOCK_ROWS, scratch_ + slot * scratch_size());
            });
        }
        return RLS_OK;
    }

  private:
    // Units that one packed key takes (as lanes, its value as lanes, as depth), and one packed query.
    int64_t key_row() const { return call_.head_dim + call_.value_dim + width_; }
    int64_t query_row() const { return call_.head_dim + call_.value_dim + width_ + value_width_; }

    Packed key_panel(int64_t kv) const {
        unit* at = key_panels_ + kv * keys_ * key_row();
        return {at, at + keys_ * call_.head_dim};
    }
    unit* value_lanes(int64_t kv) const { return key_panel(kv).depth + keys_ * width_; }
    Packed query_panel(int64_t local) const {
        unit* at = query_panels_ + local * queries_ * query_row();
        return {at, at + queries_ * call_.head_dim};
    }
    Packed grad_panel(int64_t local) const {
        unit* at = query_panel(local).depth + queries_ * width_;
        return {at, at + queries_ * call_.value_dim};
    }

    void pack(const Packed& packed, const rls_tensor& tensor, int64_t batch, int64_t head, int64_t rows, int64_t padded,
              int64_t elements) const {
        const char* data = row_of<DTYPE>(tensor, batch, head, 0);
        const int64_t stride = tensor.length_stride * ELEMENT_BYTES<DTYPE>;
        pack_lanes_panel<Units, DTYPE>(packed.lanes, data, stride, 0, rows, elements);
        if (packed.depth) pack_depth_panel<Units, DTYPE>(packed.depth, padded, data, stride, 0, padded, rows, elements);
    }

    void pack_keys(int64_t kv) const {
        const int64_t batch = (first_head_ + kv) / call_.kv_heads, head = (first_head_ + kv) % call_.kv_heads;
        const int64_t length = length_of(call_, batch);
        pack(key_panel(kv), call_.key, batch, head, length, keys_, call_.head_dim);
        pack({value_lanes(kv), nullptr}, call_.value, batch, head, length, keys_, call_.value_dim);
        for (int64_t start = 0; start < length; start += KEY_BLOCK)
            taints_[(kv * keys_ + start) / KEY_BLOCK] =
                call_.is_causal && !all_finite<DTYPE>(row_of<DTYPE>(call_.key, batch, head, start),
                                                      call_.key.length_stride * ELEMENT_BYTES<DTYPE>,
                                                      smaller(KEY_BLOCK, length - start), call_.head_dim);
    }

    void pack_queries(int64_t local) const {
        const auto [batch, head] = query_head(local);
        pack(query_panel(local), call_.query, batch, head, call_.query_length, queries_, call_.head_dim);
        pack(grad_panel(local), g_.grad_out, batch, head, call_.query_length, queries_, call_.value_dim);
    }

    // A scratch slot: two left operands, two sums of the same shapes, and two blocks of pairs.
    int64_t scratch_size() const { return BLOCK_ROWS * 2 * (width_ + value_width_ + KEY_BLOCK); }
    struct Scratch {
        unit *left, *left_value;
        float *sum, *sum_value;
        float *weights, *scores;
    };
    Scratch clear_scratch(float* at) const {
        memset(at, 0, static_cast<size_t>(scratch_size()) * sizeof(float));
        float* left_value = at + BLOCK_ROWS * width_;
        float* sum = left_value + BLOCK_ROWS * value_width_;
        float* sum_value = sum + BLOCK_ROWS * width_;
        float* weights = sum_value + BLOCK_ROWS * value_width_;
        return {reinterpret_cast<unit*>(at),     reinterpret_cast<unit*>(left_value), sum, sum_value, weights,
                weights + BLOCK_ROWS * KEY_BLOCK};
    }

    void load_rows(unit* left, int64_t width, const rls_tensor& tensor, int64_t batch, int64_t head, int64_t first,
                   int64_t rows, int64_t elements) const {
        for (int64_t r = 0; r < rows; ++r)
            pack_row<Units, DTYPE>(left + r * width, width, row_of<DTYPE>(tensor, batch, head, first + r), elements);
    }

    // Fills score and grad_weight [TILE_ROWS][TILE] with left . lanes and left_value . value_lanes.
    void products(float (*score)[TILE], float (*grad_weight)[TILE], const Scratch& scratch, int64_t row,
                  const unit* lanes, const unit* value_lanes) const {
        const auto product = [&](float (*to)[TILE], const unit* left, int64_t width, const unit* right, int64_t depth) {
            memset(to, 0, TILE_ROWS * TILE * sizeof(float));
            accumulate_tile<Units, TILE_VECTORS>(to[0], TILE, left + row * width, width, right, depth);
        };
        product(score, scratch.left, width_, lanes, call_.head_dim);
        product(grad_weight, scratch.left_value, value_width_, value_lanes, call_.value_dim);
    }

    // Visits the pairs of a block of queries with keys [start, end), LANES keys at a time:
    // visit(row, key, seen, score, logit, bias, grad_weight), of which the first `seen` lanes are visible.
    template <class Visit>
    void visit_keys(int64_t local, int64_t first_query, int64_t rows, const Scratch& scratch, int64_t start,
                    int64_t end, const Visit& visit) const {
        const auto [batch, head] = query_head(local);
        const int64_t kv = local / group_, length = length_of(call_, batch);
        const float* bias = bias_of(call_, batch, head);
        for (int64_t key = start; key < end; key += TILE) {
            for (int64_t row = 0; row < rows; row += TILE_ROWS) {
                alignas(64) float score[TILE_ROWS][TILE], grad_weight[TILE_ROWS][TILE];
                products(score, grad_weight, scratch, row, key_panel(kv).lanes + key * call_.head_dim,
                         value_lanes(kv) + key * call_.value_dim);
                for (int64_t r = row; r < smaller(row + TILE_ROWS, rows); ++r) {
                    const int64_t visible = visible_to(call_, first_query + r, length);
                    const vec strength = broadcast(strength_at(batch, head, first_query + r));
                    for (int64_t j = 0; j < TILE; j += LANES) {
                        const int64_t left = length - key - j;
                        const vec b = left > 0 ? load_elements<RLS_FLOAT32>(bias + key + j, left) : broadcast(0);
                        visit(r, key + j, visible - key - j,
                              mul(load(score[r - row] + j), broadcast(call_.scale)), mul(b, strength), b,
                              load(grad_weight[r - row] + j));
                    }
                }
            }
        }
    }

    // Sums over the keys of one query's pairs: with eps, of A, A w, w, A w dP and w dP; without, of P and P dP.
    struct TermSums {
        vec plain, weight, lift, weight_grad, lift_grad;
    };

    // The row terms of a block of queries, from one sweep over the keys.
    void find_terms(int64_t local, int64_t first_query, int64_t rows, int64_t end, const Scratch& scratch) const {
        const auto [batch, head] = query_head(local);
        TermSums sums[BLOCK_ROWS];
        const vec zero = broadcast(0);
        for (TermSums& sum : sums) sum = {zero, zero, zero, zero, zero};
        visit_keys(local, first_query, rows, scratch, 0, end,
                   [&, batch = batch, head = head](int64_t r, int64_t, int64_t seen, vec score, vec logit, vec,
                                                   vec grad_weight) {
                       const QueryTerms terms = saved_terms(batch, head, first_query + r);
                       TermSums& sum = sums[r];
                       vec weight, lift = zero;
                       if (call_.eps == 0) {
                           weight = first(seen, weight_of(score, logit, terms), zero);
                       } else {
                           const vec plain = first(seen, plain_of(score, terms), zero);
                           lift = first(seen, lift_of(logit, terms), zero);
                           weight = mul(plain, lift);
                           sum.plain = add(sum.plain, plain);
                       }
                       const vec grad = first(seen, grad_weight, zero);
                       sum.weight = add(sum.weight, weight);
                       sum.lift = add(sum.lift, lift);
                       sum.weight_grad = fma(weight, grad, sum.weight_grad);
                       sum.lift_grad = fma(lift, grad, sum.lift_grad);
                   });
        for (int64_t r = 0; r < rows; ++r) {
            float* terms = terms_ + row_index(batch, head, call_.query_length, first_query + r);
            const int64_t plane = call_.batch * call_.query_heads * call_.query_length;
            const float plain_factor = call_.eps == 0 ? 1 : 1 / reduce_add(sums[r].plain);
            const float weight = reduce_add(sums[r].weight) * plain_factor;
            const float weight_grad = reduce_add(sums[r].weight_grad) * plain_factor;
            const float weight_factor = 1 / (weight + call_.eps * reduce_add(sums[r].lift));
            const float delta = (weight_grad + call_.eps * reduce_add(sums[r].lift_grad)) * weight_factor;
            terms[PLAIN_FACTOR * plane] = plain_factor;
            terms[WEIGHT_FACTOR * plane] = weight_factor;
            terms[DELTA * plane] = delta;
            terms[GAMMA * plane] = (weight_grad - delta * weight) * weight_factor;
        }
    }

    // Queries [first, first + BLOCK_ROWS) of one query head over the keys: gradients of query and strength.
    void sweep_keys(int64_t local, int64_t first_query, float* memory) const {
        const auto [batch, head] = query_head(local);
        const Scratch scratch = clear_scratch(memory);
        const int64_t rows = smaller(BLOCK_ROWS, call_.query_length - first_query);
        load_rows(scratch.left, width_, call_.query, batch, head, first_query, rows, call_.head_dim);
        load_rows(scratch.left_value, value_width_, g_.grad_out, batch, head, first_query, rows, call_.value_dim);
        const int64_t kv = local / group_, end = visible_to(call_, first_query + rows - 1, length_of(call_, batch));
        find_terms(local, first_query, rows, end, scratch);
        vec grad_strength[BLOCK_ROWS];
        for (vec& sum : grad_strength) sum = broadcast(0);
        for (int64_t start = 0; start < end; start += KEY_BLOCK) {
            const int64_t keys = smaller(KEY_BLOCK, end - start);
            visit_keys(local, first_query, rows, scratch, start, start + keys,
                       [&, batch = batch, head = head](int64_t r, int64_t key, int64_t seen, vec score, vec logit,
                                                       vec bias, vec grad_weight) {
                           const QueryTerms terms = terms_of_query(batch, head, first_query + r);
                           const PairGradient pair = pair_gradient(score, logit, grad_weight, terms, call_.eps);
                           const vec zero = broadcast(0);
                           store(scratch.scores + r * KEY_BLOCK + key - start, first(seen, pair.score, zero));
                           grad_strength[r] = add(grad_strength[r], first(seen, mul(pair.logit, bias), zero));
                       });
            unit* gradients = reinterpret_cast<unit*>(scratch.scores);
            if (taints_[(kv * keys_ + start) / KEY_BLOCK]) [[unlikely]] {
                const int64_t length = length_of(call_, batch);
                accumulate_seen<Units>(scratch.sum, width_, rows, gradients, KEY_BLOCK, key_panel(kv).depth, keys_,
                                       start, [&](int64_t row) {
                                           return smaller(keys, visible_to(call_, first_query + row, length) - start);
                                       });
                continue;
            }
            accumulate_rows<Units>(scratch.sum, width_, rows, gradients, KEY_BLOCK, key_panel(kv).depth, keys_, start,
                                   [keys](int64_t) { return keys; });
        }
        for (int64_t r = 0; r < rows; ++r) {
            write_gradient(g_.grad_query, batch, head, first_query + r, scratch.sum + r * width_, call_.head_dim,
                           call_.scale);
            g_.grad_strength[row_index(batch, head, call_.query_length, first_query + r)] =
                reduce_add(grad_strength[r]);
        }
    }

    // Keys [first, first + BLOCK_ROWS) of one key-value head over all queries of its group: gradients of key, value
    // and bias.
    void sweep_queries(int64_t kv, int64_t first_key, float* memory) const {
        const int64_t batch = (first_head_ + kv) / call_.kv_heads, kv_head = (first_head_ + kv) % call_.kv_heads;
        const Scratch scratch = clear_scratch(memory);
        const int64_t all_rows = smaller(BLOCK_ROWS, call_.key_length - first_key);
        // Rows that aren't padding; the others' gradients stay 0, whatever they hold.
        const int64_t rows = larger(0, smaller(all_rows, length_of(call_, batch) - first_key));
        load_rows(scratch.left, width_, call_.key, batch, kv_head, first_key, rows, call_.head_dim);
        load_rows(scratch.left_value, value_width_, call_.value, batch, kv_head, first_key, rows, call_.value_dim);
        for (int64_t member = 0; member < group_; ++member) {
            const int64_t head = kv_head * group_ + member, local = kv * group_ + member;
            const float* bias = bias_of(call_, batch, head) + first_key;
            float grad_bias[BLOCK_ROWS] = {};
            const int64_t begin = first_query_of(first_key) / KEY_BLOCK * KEY_BLOCK;
            for (int64_t start = begin; start < call_.query_length && rows > 0; start += KEY_BLOCK) {
                const int64_t queries = smaller(KEY_BLOCK, call_.query_length - start);
                for (int64_t query = start; query < start + queries; query += TILE) {
                    for (int64_t row = 0; row < rows; row += TILE_ROWS) {
                        alignas(64) float score[TILE_ROWS][TILE], grad_weight[TILE_ROWS][TILE];
                        products(score, grad_weight, scratch, row, query_panel(local).lanes + query * call_.head_dim,
                                 grad_panel(local).lanes + query * call_.value_dim);
                        for (int64_t i = 0; i < TILE; i += LANES) {
                            const int64_t left = call_.query_length - query - i;
                            if (left <= 0) continue;
                            const QueryTerms terms = terms_of_queries(batch, head, query + i, left);
                            const vec strength = strengths_at(batch, head, query + i, left);
                            for (int64_t r = row; r < smaller(row + TILE_ROWS, rows); ++r) {
                                const PairGradient pair =
                                    pair_gradient(mul(load(score[r - row] + i), broadcast(call_.scale)),
                                                  mul(broadcast(bias[r]), strength),
                                                  load(grad_weight[r - row] + i), terms, call_.eps);
                                const int64_t hidden = first_query_of(first_key + r) - query - i;
                                const auto seen = [&](vec a) {
                                    return first(hidden, broadcast(0), first(left, a, broadcast(0)));
                                };
                                const int64_t at = r * KEY_BLOCK + query - start + i;
                                store(scratch.weights + at, seen(pair.weight));
                                store(scratch.scores + at, seen(pair.score));
                                grad_bias[r] += reduce_add(seen(mul(pair.logit, strength)));
                            }
                        }
                    }
                }
                const auto all = [queries](int64_t) { return queries; };
                accumulate_rows<Units>(scratch.sum, width_, rows, reinterpret_cast<unit*>(scratch.scores), KEY_BLOCK,
                                       query_panel(local).depth, queries_, start, all);
                accumulate_rows<Units>(scratch.sum_value, value_width_, rows, reinterpret_cast<unit*>(scratch.weights),
                                       KEY_BLOCK, grad_panel(local).depth, queries_, start, all);
            }
            memcpy(g_.grad_bias + row_index(batch, head, call_.key_length, first_key), grad_bias,
                   static_cast<size_t>(all_rows) * sizeof(float));
        }
        for (int64_t r = 0; r < all_rows; ++r) {
            write_gradient(g_.grad_key, batch, kv_head, first_key + r, scratch.sum + r * width_, call_.head_dim,
                           call_.scale);
            write_gradient(g_.grad_value, batch, kv_head, first_key + r, scratch.sum_value + r * value_width_,
                           call_.value_dim, 1);
        }
    }

    // The first query that sees `key`.
    int64_t first_query_of(int64_t key) const {
        return call_.is_causal ? larger(0, key + call_.query_length - call_.key_length) : 0;
    }

    int64_t row_index(int64_t batch, int64_t head, int64_t length, int64_t row) const {
        return (batch * call_.query_heads + head) * length + row;
    }

    float strength_at(int64_t batch, int64_t head, int64_t query) const {
        return strength_of(call_, batch, head)[query * call_.strength_query_stride];
    }

    vec strengths_at(int64_t batch, int64_t head, int64_t query, int64_t count) const {
        const float* strength = strength_of(call_, batch, head);
        if (call_.strength_query_stride == 0) return broadcast(*strength);
        return load_elements<RLS_FLOAT32>(strength + query, count);
    }

    // Terms of one query or of several, as `read` takes them from memory; the sums only once the first sweep is done.
    template <class Read>
    QueryTerms read_terms(int64_t batch, int64_t head, int64_t query, bool with_sums, const Read& read) const {
        const int64_t index = row_index(batch, head, call_.query_length, query);
        const int64_t plane = call_.batch * call_.query_heads * call_.query_length;
        const auto log_of = [&](rls_row row) { return read(call_.rows + row * plane + index); };
        const vec zero = broadcast(0);
        const vec lse_steered = log_of(RLS_LSE_STEERED);
        QueryTerms terms{zero, lse_steered, zero, zero, zero, zero, zero, zero};
        if (call_.eps > 0) {
            terms.lse = log_of(RLS_LSE);
            terms.log_normaliser = log_of(RLS_LOG_NORMALISER);
        } else {
            const vec room = sub(broadcast(1e16f), max(lse_steered, sub(zero, lse_steered)));
            terms.score_counts = max(zero, min(room, broadcast(1)));
        }
        if (!with_sums) return terms;
        const auto sum_of = [&](TermPlane term) { return read(terms_ + term * plane + index); };
        terms.plain_factor = sum_of(PLAIN_FACTOR);
        terms.weight_factor = sum_of(WEIGHT_FACTOR);
        terms.delta = sum_of(DELTA);
        terms.gamma = sum_of(GAMMA);
        return terms;
    }

    QueryTerms saved_terms(int64_t batch, int64_t head, int64_t query) const {
        return read_terms(batch, head, query, false, [](const float* at) { return broadcast(*at); });
    }

    QueryTerms terms_of_query(int64_t batch, int64_t head, int64_t query) const {
        return read_terms(batch, head, query, true, [](const float* at) { return broadcast(*at); });
    }

    QueryTerms terms_of_queries(int64_t batch, int64_t head, int64_t query, int64_t count) const {
        return read_terms(batch, head, query, true,
                          [count](const float* at) { return load_elements<RLS_FLOAT32>(at, count); });
    }

    void write_gradient(const rls_tensor& tensor, int64_t batch, int64_t head, int64_t row, const float* sum,
                        int64_t elements, float factor) const {
        char* at = const_cast<char*>(row_of<DTYPE>(tensor, batch, head, row));
        for (int64_t d = 0; d < elements; d += LANES)
            store_elements<DTYPE>(at + d * ELEMENT_BYTES<DTYPE>, mul(load(sum + d), broadcast(factor)), elements - d);
    }

    struct QueryHead {
        int64_t batch, head;
    };
    QueryHead query_head(int64_t local) const {
        const int64_t kv = first_head_ + local / group_;
        return {kv / call_.kv_heads, kv % call_.kv_heads * group_ + local % group_};
    }

    const rls_gradient& g_;
    const rls_call& call_;
    const int64_t group_, queries_, keys_, width_, value_width_;
    int64_t first_head_ = 0;
    unit *key_panels_ = nullptr, *query_panels_ = nullptr;
    uint8_t* taints_ = nullptr;
    float *terms_ = nullptr, *scratch_ = nullptr;
};

template <int DTYPE>
int32_t backward(const rls_gradient& gradient) {
    return Backward<DTYPE>(gradient).run();
}

}  // namespace rls::RLS_ISA

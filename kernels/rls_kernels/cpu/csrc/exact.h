// Rows whose numbers float32 cannot carry, in float64: all that a row sees suppressed by -3.4e38, scores past float32,
// logarithms so large that their differences are rounding. Plain loops, for rows that are rare.
#pragma once

#include <cfloat>
#include <cmath>

#include "rows.h"
#include "threads.h"

namespace rls::RLS_ISA {

constexpr int64_t WIDEST = 256;
// Beyond this size, in powers of two, a steered score's rounding shows: 2^-24 of it is 1e-3 of a weight.
constexpr float MOST_SCORE = 16384;

template <int DTYPE>
class ExactRow {
  public:
    ExactRow(const rls_call& call, int64_t batch, int64_t head, int64_t query)
        : call_(call),
          batch_(batch),
          head_(head),
          kv_(head / (call.query_heads / call.kv_heads)),
          query_(query),
          visible_(visible_to(call, query, length_of(call, batch))),
          bias_(bias_of(call, batch, head)),
          strength_(strength_of(call, batch, head)[query * call.strength_query_stride]) {
        widen(left_, row_of<DTYPE>(call.query, batch, head, query), call.head_dim);
    }

    // The row's output, and the planes that the caller asked for. It sees at least one key.
    void write() {
        // Maxima and sums of the scores, the steered scores and what weighs the values.
        double plain_top = -INFINITY, steered_top = -INFINITY, top = -INFINITY;
        for_keys([&](int64_t, double score, double logit) {
            plain_top = larger(plain_top, score);
            steered_top = larger(steered_top, score + logit);
        });
        double plain = 0, steered = 0, plain_moment = 0, steered_moment = 0;
        for_keys([&](int64_t, double score, double logit) {
            const double x = score - plain_top, y = score + logit - steered_top;
            plain += exp(x), steered += exp(y);
            plain_moment += times(exp(x), x), steered_moment += times(exp(y), y);
        });
        const double lse = plain_top + log(plain), lse_steered = steered_top + log(steered);
        double divergence = 0, bias = 0;
        // Against the top and not the logarithm, which may have lost what the sum adds to it.
        const auto plain_of = [&](double score) { return exp(score - plain_top) / plain; };
        const auto weight_of = [&](double score, double logit) {
            return call_.eps > 0 ? log(plain_of(score) + static_cast<double>(call_.eps)) + logit : score + logit;
        };
        for_keys([&](int64_t key, double score, double logit) {
            const double a = plain_of(score);
            const double log_a = score - plain_top - log(plain);
            divergence += times(a, log_a - (score + logit - steered_top - log(steered)));
            bias += times(a, static_cast<double>(bias_[key]));
            top = larger(top, weight_of(score, logit));
        });
        double total = 0, sums[WIDEST] = {}, value[WIDEST];
        for_keys([&](int64_t key, double score, double logit) {
            const double weight = exp(weight_of(score, logit) - top);
            total += weight;
            widen(value, row_of<DTYPE>(call_.value, batch_, kv_, key), call_.value_dim);
            for (int64_t d = 0; d < call_.value_dim; ++d) sums[d] += weight * value[d];
        });
        alignas(64) float row[WIDEST + LANES];
        for (int64_t d = 0; d < call_.value_dim; ++d) row[d] = static_cast<float>(sums[d] / total);
        write_output(call_, batch_, head_, query_, row);
        if (!call_.rows) return;
        put(RLS_LSE, lse);
        put(RLS_LSE_STEERED, lse_steered);
        put(RLS_LOG_NORMALISER, call_.eps > 0 ? top + log(total) : lse_steered - lse);
        if (call_.want_rows == RLS_NORMALISERS) return;
        put(RLS_ENTROPY, log(plain) - plain_moment / plain);
        put(RLS_ENTROPY_STEERED, log(steered) - steered_moment / steered);
        put(RLS_MEAN_BIAS, bias);
        put(RLS_DIVERGENCE, divergence);
    }

  private:
    // visit(key, score, logit) for every key that the row sees: scale q k, and strength bias.
    template <class Visit>
    void for_keys(const Visit& visit) {
        for (int64_t key = 0; key < visible_; ++key)
            visit(key, score_of(key), strength_ * static_cast<double>(bias_[key]));
    }

    // Never inlined: the compiler would round it in another order in each loop, and a score less itself must be 0.
    [[gnu::noinline]] double score_of(int64_t key) const {
        double right[WIDEST], dot = 0;
        widen(right, row_of<DTYPE>(call_.key, batch_, kv_, key), call_.head_dim);
        for (int64_t d = 0; d < call_.head_dim; ++d) dot += left_[d] * right[d];
        return static_cast<double>(call_.scale) * dot;
    }

    static void widen(double* to, const char* row, int64_t elements) {
        alignas(64) float some[LANES];
        for (int64_t d = 0; d < elements; d += LANES) {
            const int64_t left = smaller(LANES, elements - d);
            store(some, load_elements<DTYPE>(row + d * ELEMENT_BYTES<DTYPE>, left));
            for (int64_t i = 0; i < left; ++i) to[d + i] = static_cast<double>(some[i]);
        }
    }

    // A weight of 0 wins over an infinite logarithm.
    static double times(double weight, double a) { return weight == 0 ? 0 : weight * a; }
    // NaN goes through.
    static double larger(double a, double b) { return a > b ? a : b; }

    void put(rls_row plane, double a) const {
        const double bounded = a > FLT_MAX ? FLT_MAX : a < -FLT_MAX ? -FLT_MAX : a;
        row_at(call_, plane, batch_, head_, query_) = static_cast<float>(bounded);
    }

    const rls_call& call_;
    const int64_t batch_, head_, kv_, query_, visible_;
    const float* bias_;
    const double strength_;
    double left_[WIDEST];
};

template <int DTYPE>
[[gnu::noinline, gnu::cold]] void write_exactly(const rls_call& call, int64_t batch, int64_t head, int64_t query) {
    ExactRow<DTYPE>(call, batch, head, query).write();
}

// Ends a row that sees a key: its output and the planes that the caller asked for. `row` is the unnormalised output,
// padded to whole vectors; `floor` holds the eps sums, or is null.
template <int DTYPE>
inline void finish_row(const rls_call& call, int64_t batch, int64_t head, int64_t query, float* row, int64_t width,
                       const RowSums& sums, const Floor* floor) {
    const RowLogs logs = floor || call.rows ? logs_of(sums) : RowLogs{0, 0};
    bool is_right = finish_output(row, width, call.eps, sums, logs, floor) && sums.weight > 0 &&
                    fabsf(sums.reference) <= MOST_SCORE;
    if (floor || call.want_rows == RLS_ALL_ROWS) is_right &= is_fine(logs) && sums.plain_bias * 0 == 0;
    if (!is_right) [[unlikely]]
        return write_exactly<DTYPE>(call, batch, head, query);
    write_output(call, batch, head, query, row);
    if (call.rows) write_rows(call, batch, head, query, sums, logs, floor);
}

// For a call in passes, whose joint rows stand: writes those anew whose logarithms are too coarse to have been joined.
template <int DTYPE>
int32_t rewrite_coarse_rows(const rls_call& call) {
    parallel_for(call.threads, call.batch * call.query_heads, [&](int64_t i, int) {
        const int64_t batch = i / call.query_heads, head = i % call.query_heads;
        for (int64_t query = 0; query < call.query_length; ++query) {
            if (visible_to(call, query, length_of(call, batch)) == 0) continue;
            const auto log2_of = [&](rls_row plane) { return row_at(call, plane, batch, head, query) * LOG2_E; };
            if (!is_fine({log2_of(RLS_LSE), log2_of(RLS_LSE_STEERED)}))
                write_exactly<DTYPE>(call, batch, head, query);
        }
    });
    return RLS_OK;
}

}  // namespace rls::RLS_ISA

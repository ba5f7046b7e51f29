"""Steered attention for many queries: one pass over the keys, online softmax in base 2, no Lq × Lk memory.

The bias tile of a key block is loaded once and multiplied by λ/scale while it still lies one value a thread; then it is
the first value of the score accumulator, so that the matrix unit adds it and no floating-point instruction is spent on
it per score. A λ that varies with the query cannot ride so, and costs one multiply-add a score.

``eps > 0`` is the business of ``floored.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rls_kernels.triton.tiles import (
    LN_2,
    LOG2_E,
    dot,
    finite,
    key_range,
    key_row,
    load_row,
    load_tile,
    store_stats,
    sum_rows,
    visible_keys,
)


@triton.jit
def _scores(query, key, logit_bias, STEERED: tl.constexpr, BIAS_FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """``q kᵀ + logit_bias`` ([M or 1, N]) before scaling, float32 [M, N]."""
    if STEERED and BIAS_FIRST:
        return dot(query, key.T, tl.broadcast_to(logit_bias, [query.shape[0], key.shape[0]]), PRECISION)
    scores = dot(query, key.T, tl.zeros([query.shape[0], key.shape[0]], tl.float32), PRECISION)
    return scores + logit_bias if STEERED else scores


@triton.jit
def _attend(
    out,
    row_max,
    row_sum,
    moment,
    plain_max,
    plain_sum,
    plain_moment,
    bias_sum,
    query,
    scale_2,
    bias_factor,
    start_n,
    limit,
    last_key,
    key_rows,
    columns,
    value_columns,
    key_ptr,
    stride_kn,
    stride_kd,
    value_ptr,
    stride_vn,
    stride_vd,
    bias_ptr,
    stride_bias_n,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEERED: tl.constexpr,
    PER_QUERY: tl.constexpr,
    STATS: tl.constexpr,
    BIAS_FIRST: tl.constexpr,
    PRECISION: tl.constexpr,
    PARTIALS: tl.constexpr,
    SUM_BY_DOT: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Take one block of keys into the running rows; MASKED blocks are those that some query sees only in part."""
    key = load_tile(key_ptr, start_n, stride_kn, stride_kd, key_rows, limit, columns, HEAD_DIM, MASKED)
    logit_bias = 0.0
    if STEERED:
        bias = load_row(bias_ptr, start_n, stride_bias_n, key_rows, limit, MASKED)
        # [1, N], or [M, N] where λ varies with the query.
        logit_bias = bias_factor[:, None] * bias[None, :] if PER_QUERY else key_row(bias_factor * bias)
    scores = _scores(query, key, logit_bias, STEERED, BIAS_FIRST and not PER_QUERY, PRECISION)
    if MASKED:
        visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL)
        scores = tl.where(visible, scores, float("-inf"))

    new_max = tl.maximum(row_max, tl.max(scores, 1))
    shift = (finite(new_max) if MASKED else new_max) * scale_2
    logits = scores * scale_2 - shift[:, None]
    weights = tl.exp2(logits)
    decay = tl.exp2(row_max * scale_2 - shift)

    if STATS:
        plain = scores - logit_bias if STEERED else scores
        new_plain_max = tl.maximum(plain_max, tl.max(plain, 1))
        plain_shift = (finite(new_plain_max) if MASKED else new_plain_max) * scale_2
        plain_logits = plain * scale_2 - plain_shift[:, None]
        plain_weights = tl.exp2(plain_logits)
        plain_decay = tl.exp2(plain_max * scale_2 - plain_shift)
        if MASKED:
            # A hidden key's logit is -inf, and its weight of 0 must win.
            logits = tl.where(visible, logits, 0.0)
            plain_logits = tl.where(visible, plain_logits, 0.0)
        # Moments are about the running shift: take them along to the new one.
        moment = (moment + row_sum * (finite(row_max) * scale_2 - shift)[:, None]) * decay[:, None]
        moment += sum_rows(weights * logits, PARTIALS)
        plain_moment += plain_sum * (finite(plain_max) * scale_2 - plain_shift)[:, None]
        plain_moment = plain_moment * plain_decay[:, None] + sum_rows(plain_weights * plain_logits, PARTIALS)
        if STEERED:
            bias_sum = bias_sum * plain_decay[:, None] + sum_rows(plain_weights * logit_bias, PARTIALS)
        plain_sum = plain_sum * plain_decay[:, None] + sum_rows(plain_weights, PARTIALS)
        plain_max = new_plain_max

    value = load_tile(value_ptr, start_n, stride_vn, stride_vd, key_rows, limit, value_columns, VALUE_DIM, MASKED)
    if SUM_BY_DOT:
        ones = tl.full([key_rows.shape[0], PARTIALS], 1.0, tl.float32).to(value.dtype)
        row_sum = dot(weights.to(value.dtype), ones, row_sum * decay[:, None], PRECISION)
    else:
        row_sum = row_sum * decay[:, None] + sum_rows(weights, PARTIALS)
    out = dot(weights.to(value.dtype), value, out * decay[:, None], PRECISION)
    return out, new_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum


@triton.jit(do_not_specialize=("stride_row_b", "stride_row_h"))
def prefill_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    bias_ptr,
    strength_ptr,
    lengths_ptr,
    out_ptr,
    lse_ptr,
    stats_ptr,
    span_ptr,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_qd,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_kd,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_vd,
    stride_bias_b,
    stride_bias_h,
    stride_bias_n,
    stride_strength_b,
    stride_strength_h,
    stride_strength_m,
    stride_row_b,
    stride_row_h,
    scale,
    batches,
    query_heads,
    group_size,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    STEERED: tl.constexpr,
    PER_QUERY: tl.constexpr,
    STATS: tl.constexpr,
    WIDER_THAN: tl.constexpr,
    BIAS_FIRST: tl.constexpr,
    PRECISION: tl.constexpr,
    PARTIALS: tl.constexpr,
    SUM_BY_DOT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """One block of queries of one head.

    ``out_ptr`` is contiguous [B, Hq, Lq, VALUE_DIM]; ``lse_ptr`` float32 [B, Hq, Lq] takes the steered log-sum-exp;
    ``stats_ptr`` float32 [5, B, Hq, Lq] is written only with STATS. ``scale`` is positive.
    """
    blocks = tl.cdiv(query_length, BLOCK_M)
    block = tl.program_id(0) % blocks
    batch_head = tl.program_id(0) // blocks
    if CAUSAL:
        # Blocks with the most keys start first, so that the last to finish are short.
        block = blocks - 1 - block
    batch = tl.cast(batch_head // query_heads, tl.int64)
    head = tl.cast(batch_head % query_heads, tl.int64)
    if WIDER_THAN is not None:
        span = tl.load(span_ptr + 2 * (batch * stride_row_b + head * stride_row_h) + 1)
        # The narrow kernel does this head.
        if span <= WIDER_THAN:
            return
    query_ptr += batch * stride_qb + head * stride_qh
    key_ptr += batch * stride_kb + head // group_size * stride_kh
    value_ptr += batch * stride_vb + head // group_size * stride_vh
    bias_ptr += batch * stride_bias_b + head * stride_bias_h
    strength_ptr += batch * stride_strength_b + head * stride_strength_h

    start_m = block * BLOCK_M
    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    last_key = start_m + query_rows + (key_length - query_length)
    limit = tl.load(lengths_ptr + batch) if HAS_LENGTHS else key_length
    full, end = key_range(start_m, query_length, key_length, limit, CAUSAL, BLOCK_M, BLOCK_N)

    query = load_tile(query_ptr, start_m, stride_qm, stride_qd, query_rows, query_length, columns, HEAD_DIM, True)
    scale_2 = scale * LOG2_E
    # What takes a bias to the units of an unscaled score: λ/scale.
    bias_factor = 0.0
    if PER_QUERY:
        bias_factor = load_row(strength_ptr, start_m, stride_strength_m, query_rows, query_length, True) / scale
    elif STEERED:
        bias_factor = tl.load(strength_ptr) / scale

    out = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M, PARTIALS], tl.float32)
    moment = row_sum
    plain_max = row_max
    plain_sum = row_sum
    plain_moment = row_sum
    bias_sum = row_sum
    for start_n in tl.range(0, full, BLOCK_N):
        out, row_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum = _attend(
            out, row_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum, query, scale_2, bias_factor,
            start_n, limit, last_key, key_rows, columns, value_columns, key_ptr, stride_kn, stride_kd, value_ptr,
            stride_vn, stride_vd, bias_ptr, stride_bias_n, HEAD_DIM, VALUE_DIM, CAUSAL, STEERED, PER_QUERY, STATS,
            BIAS_FIRST, PRECISION, PARTIALS, SUM_BY_DOT, MASKED=False,
        )  # fmt: skip
    for start_n in tl.range(full, end, BLOCK_N, num_stages=1):
        out, row_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum = _attend(
            out, row_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum, query, scale_2, bias_factor,
            start_n, limit, last_key, key_rows, columns, value_columns, key_ptr, stride_kn, stride_kd, value_ptr,
            stride_vn, stride_vd, bias_ptr, stride_bias_n, HEAD_DIM, VALUE_DIM, CAUSAL, STEERED, PER_QUERY, STATS,
            BIAS_FIRST, PRECISION, PARTIALS, SUM_BY_DOT, MASKED=True,
        )  # fmt: skip

    # By dot, every column of the sum holds all of it.
    total = tl.sum(row_sum, 1) / PARTIALS if SUM_BY_DOT else tl.sum(row_sum, 1)
    seen = total > 0
    in_range = start_m + query_rows < query_length
    row = tl.cast(batch_head, tl.int64) * query_length + start_m + query_rows
    shift = finite(row_max) * scale_2
    tl.store(lse_ptr + row, tl.where(seen, (shift + tl.log2(total)) * LN_2, float("-inf")), mask=in_range)
    if STATS:
        rows_total = tl.cast(batches, tl.int64) * query_heads * query_length
        store_stats(
            stats_ptr, row, rows_total, in_range, seen, finite(plain_max) * scale_2, tl.sum(plain_sum, 1),
            tl.sum(plain_moment, 1), tl.sum(bias_sum, 1) * scale_2, shift, total, tl.sum(moment, 1),
        )  # fmt: skip
    # A row that saw no key is 0, not 0/0.
    out = out / tl.where(seen, total, 1.0)[:, None]
    tl.store(
        out_ptr + row[:, None] * VALUE_DIM + value_columns[None, :],
        out.to(out_ptr.dtype.element_ty),
        mask=in_range[:, None] & (value_columns < VALUE_DIM)[None, :],
    )

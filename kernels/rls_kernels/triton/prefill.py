"""Steered attention for many queries: one pass over the keys, online softmax in base 2, no Lq × Lk memory.

The bias tile of a key block is loaded once and multiplied by λ/scale while it still lies one value a thread; then it is
the first value of the score accumulator, so that the matrix unit adds it and no floating-point instruction is spent on
it per score. A λ that varies with the query cannot ride so, and costs one multiply-add a score.

``eps > 0`` is the business of ``floored.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rls_kernels.triton.operands import SIZES
from rls_kernels.triton.tiles import (
    LN_2,
    LOG2_E,
    dot,
    dot_rows,
    key_range,
    key_row,
    load_bias,
    load_first,
    load_keys,
    load_row,
    load_tile,
    lowest_score,
    program_again,
    query_block,
    starts_of,
    store_stats,
    sum_rows,
    visible_keys,
)


class Running(NamedTuple):
    """What a program keeps of its rows from block to block: ``out`` [M, Dv], maxima [M] and sums [M, PARTIALS]."""

    out: Any
    row_max: Any
    row_sum: Any
    moment: Any
    plain_max: Any
    plain_sum: Any
    plain_moment: Any
    bias_sum: Any


@triton.jit
def _attend(
    running,
    operands,
    starts,
    query,
    is_query,
    scale_2,
    bias_factor,
    start_n,
    limit,
    last_key,
    key_rows,
    columns,
    value_columns,
    key_descriptor,
    value_descriptor,
    batch,
    kv_head,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEERED: tl.constexpr,
    PER_QUERY: tl.constexpr,
    STATS: tl.constexpr,
    BIAS_FIRST: tl.constexpr,
    BIAS_EARLY: tl.constexpr,
    PARTIALS: tl.constexpr,
    SUM_BY_DOT: tl.constexpr,
    SLICE_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Take one block of keys into the running rows; MASKED blocks are those that some query sees only in part.

    ``query`` is the tile [M, D], or with SLICE_D where its rows start [M], read where ``is_query``.
    """
    rows: tl.constexpr = query.shape[0]
    keys: tl.constexpr = key_rows.shape[0]
    # λb/scale, as [1, N] or [M, N].
    logit_bias = 0.0
    if SLICE_D is not None:
        scores = dot_rows(
            query, None, operands.query.strides.column, is_query, starts.key, operands.key.strides, start_n, key_rows,
            limit, HEAD_DIM, SLICE_D,
        )  # fmt: skip
    else:
        if BIAS_FIRST and BIAS_EARLY:
            logit_bias = load_first(
                starts.bias, start_n, operands.bias.strides.figure, bias_factor, limit, rows, keys, MASKED
            )
        key = load_keys(
            key_descriptor, batch, kv_head, starts.key, operands.key.strides, start_n, key_rows, limit, columns,
            HEAD_DIM, MASKED,
        )  # fmt: skip
        if BIAS_FIRST and not BIAS_EARLY:
            logit_bias = load_first(
                starts.bias, start_n, operands.bias.strides.figure, bias_factor, limit, rows, keys, MASKED
            )
        first = logit_bias if BIAS_FIRST else tl.zeros([rows, keys], tl.float32)
        scores = dot(query, key.T, first)
    if STEERED and not BIAS_FIRST:
        bias = load_bias(starts.bias, start_n, operands.bias.strides.figure, key_rows, limit, MASKED)
        logit_bias = bias_factor[:, None] * bias[None, :] if PER_QUERY else key_row(bias_factor * bias)
        scores += logit_bias
    if MASKED:
        visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL)
        scores = tl.where(visible, scores, float("-inf"))

    new_max = tl.maximum(running.row_max, tl.max(scores, 1))
    shift = new_max * scale_2
    logits = scores * scale_2 - shift[:, None]
    weights = tl.exp2(logits)
    # How far the old shift lies below the new one.
    behind = running.row_max * scale_2 - shift
    decay = tl.exp2(behind)

    moment = running.moment
    plain_max = running.plain_max
    plain_sum = running.plain_sum
    plain_moment = running.plain_moment
    bias_sum = running.bias_sum
    if STATS:
        plain = scores - logit_bias if STEERED else scores
        new_plain_max = tl.maximum(plain_max, tl.max(plain, 1))
        plain_shift = new_plain_max * scale_2
        plain_logits = plain * scale_2 - plain_shift[:, None]
        plain_weights = tl.exp2(plain_logits)
        plain_behind = plain_max * scale_2 - plain_shift
        plain_decay = tl.exp2(plain_behind)
        if MASKED:
            # A hidden key's logit is -inf, and its weight of 0 must win.
            logits = tl.where(visible, logits, 0.0)
            plain_logits = tl.where(visible, plain_logits, 0.0)
        # Moments are about the running shift: take them along to the new one.
        moment = (moment + running.row_sum * behind[:, None]) * decay[:, None]
        moment += sum_rows(weights * logits, PARTIALS)
        plain_moment += plain_sum * plain_behind[:, None]
        plain_moment = plain_moment * plain_decay[:, None] + sum_rows(plain_weights * plain_logits, PARTIALS)
        if STEERED:
            bias_sum = bias_sum * plain_decay[:, None] + sum_rows(plain_weights * logit_bias, PARTIALS)
        plain_sum = plain_sum * plain_decay[:, None] + sum_rows(plain_weights, PARTIALS)
        plain_max = new_plain_max

    value = load_keys(
        value_descriptor, batch, kv_head, starts.value, operands.value.strides, start_n, key_rows, limit,
        value_columns, VALUE_DIM, MASKED,
    )  # fmt: skip
    if SUM_BY_DOT:
        ones = tl.full([keys, PARTIALS], 1.0, tl.float32).to(value.dtype)
        row_sum = dot(weights.to(value.dtype), ones, running.row_sum * decay[:, None])
    else:
        row_sum = running.row_sum * decay[:, None] + sum_rows(weights, PARTIALS)
    out = dot(weights.to(value.dtype), value, running.out * decay[:, None])
    return Running(out, new_max, row_sum, moment, plain_max, plain_sum, plain_moment, bias_sum)


@triton.jit(do_not_specialize=SIZES)
def prefill_kernel(
    operands,
    forward,
    span_ptr,
    key_descriptor,
    value_descriptor,
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
    STEERED: tl.constexpr,
    PER_QUERY: tl.constexpr,
    STATS: tl.constexpr,
    WIDER_THAN: tl.constexpr,
    BIAS_FIRST: tl.constexpr,
    BIAS_EARLY: tl.constexpr,
    PARTIALS: tl.constexpr,
    SUM_BY_DOT: tl.constexpr,
    ROWS_ANEW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    SLICE_D: tl.constexpr,
):
    """One block of queries of one head.

    ``operands`` and ``forward`` are those of ``operands.py``; ``scale`` is positive. The descriptors, of all keys and
    values in tiles of [1, 1, BLOCK_N, BLOCK_D] and [1, 1, BLOCK_N, BLOCK_DV], may be None.
    """
    blocks = tl.cdiv(query_length, BLOCK_M)
    block, batch_head = query_block(tl.program_id(0), blocks, CAUSAL)
    batch = tl.cast(batch_head // query_heads, tl.int64)
    head = tl.cast(batch_head % query_heads, tl.int64)
    if WIDER_THAN is not None:
        span = tl.load(span_ptr + 2 * (batch * stride_row_b + head * stride_row_h) + 1)
        # The narrow kernel does this head.
        if span <= WIDER_THAN:
            return
    kv_head = head // group_size
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    starts = starts_of(operands, batch, head, kv_head)

    start_m = block * BLOCK_M
    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    masked_rows = tl.arange(0, MASKED_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    last_key = start_m + query_rows + (key_length - query_length)
    full, end = key_range(start_m, query_length, key_length, limit, CAUSAL, BLOCK_M, BLOCK_N)

    is_query = start_m + query_rows < query_length
    if SLICE_D is None:
        query = load_tile(
            starts.query, operands.query.strides, start_m, query_rows, query_length, columns, HEAD_DIM, True
        )
    else:
        query = starts.query + tl.cast(start_m + query_rows, tl.int64) * operands.query.strides.row
    scale_2 = scale * LOG2_E
    # What takes a bias to the units of an unscaled score: λ/scale.
    bias_factor = 0.0
    if PER_QUERY:
        bias_factor = (
            load_row(starts.strength, start_m, operands.strength.strides.figure, query_rows, query_length, True) / scale
        )
    elif STEERED:
        bias_factor = tl.load(starts.strength) / scale

    row_max = tl.full([BLOCK_M], lowest_score(scale_2), tl.float32)
    row_sum = tl.zeros([BLOCK_M, PARTIALS], tl.float32)
    running = Running(
        tl.zeros([BLOCK_M, BLOCK_DV], tl.float32), row_max, row_sum, row_sum, row_max, row_sum, row_sum, row_sum
    )
    for start_n in tl.range(0, full, BLOCK_N):
        running = _attend(
            running, operands, starts, query, is_query, scale_2, bias_factor, start_n, limit, last_key, key_rows,
            columns, value_columns, key_descriptor, value_descriptor, batch, kv_head, HEAD_DIM, VALUE_DIM, CAUSAL,
            STEERED, PER_QUERY, STATS, BIAS_FIRST, BIAS_EARLY, PARTIALS, SUM_BY_DOT, SLICE_D, MASKED=False,
        )  # fmt: skip
    for start_n in tl.range(full, end, MASKED_N, num_stages=1):
        running = _attend(
            running, operands, starts, query, is_query, scale_2, bias_factor, start_n, limit, last_key, masked_rows,
            columns, value_columns, key_descriptor, value_descriptor, batch, kv_head, HEAD_DIM, VALUE_DIM, CAUSAL,
            STEERED, PER_QUERY, STATS, BIAS_FIRST, BIAS_EARLY, PARTIALS, SUM_BY_DOT, SLICE_D, MASKED=True,
        )  # fmt: skip

    # By dot, every column of the sum holds all of it.
    total = tl.sum(running.row_sum, 1) / PARTIALS if SUM_BY_DOT else tl.sum(running.row_sum, 1)
    seen = total > 0
    if ROWS_ANEW:
        block, batch_head = query_block(program_again(), blocks, CAUSAL)
        start_m = block * BLOCK_M
    in_range = start_m + query_rows < query_length
    row = tl.cast(batch_head, tl.int64) * query_length + start_m + query_rows
    shift = running.row_max * scale_2
    tl.store(forward.lse + row, tl.where(seen, (shift + tl.log2(total)) * LN_2, float("-inf")), mask=in_range)
    if STATS:
        rows_total = tl.cast(batches, tl.int64) * query_heads * query_length
        store_stats(
            forward.stats, row, rows_total, in_range, seen, running.plain_max * scale_2, tl.sum(running.plain_sum, 1),
            tl.sum(running.plain_moment, 1), tl.sum(running.bias_sum, 1) * scale_2, shift, total,
            tl.sum(running.moment, 1),
        )  # fmt: skip
    # A row that saw no key is 0, not 0/0.
    out = running.out / tl.where(seen, total, 1.0)[:, None]
    tl.store(
        forward.out + row[:, None] * VALUE_DIM + value_columns[None, :],
        out.to(forward.out.dtype.element_ty),
        mask=in_range[:, None] & (value_columns < VALUE_DIM)[None, :],
    )

"""Prefill with the published floor, statistics or both where λb spans few powers of two: one exponential a score.

Within such a span the plain weight of a key is its steered one times ``u = 2^(lowest λb - λb)``, a figure a key and not
a score. So every sum that a row needs is one of its weights ``p`` against a column along the keys, and the matrix unit
takes them all in one narrow product: against 1 (the steered sum), u (the plain one) and ``u (λb - lowest)`` (for KL);
against 1 and u again for the entropies, of ``p log p``. All of them see the same rounded ``p``, so the statistics are
those of one distribution a rounding away: KL is 0 where λ is.

The floor's ``Σ w v`` and ``Σ w`` are what a query of zeros gathers in the steered loop, whose logits are λb alone: the
last row of each block is one, at no instruction a score and 1/BLOCK_M of the rows. Blocks that only some queries see
whole (the diagonal, the last one) have their values read twice.

The columns are made once a (batch, head), ahead, by ``columns_kernel``; that also finds the span. Where it is wider
than the limit, a program ends at once, and the kernels that keep two exponentials do that head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rls_kernels.triton.operands import SIZES, RowStrides
from rls_kernels.triton.tiles import (
    LN_2,
    LOG2_E,
    dot,
    key_range,
    load_bias,
    load_first,
    load_keys,
    load_tile,
    lowest_score,
    program_again,
    query_block,
    start_of,
    starts_of,
    store_figures,
    visible_keys,
)

# Float16 columns are raised by this power of two, the most that they fall below 1: their low parts would underflow.
COLUMN_BITS = tl.constexpr(12)
# Biases that a program of columns_kernel reads at a time.
SPAN_KEYS = tl.constexpr(4096)


@triton.jit(do_not_specialize=SIZES)
def columns_kernel(
    operands,
    columns_ptr,
    span_ptr,
    heads,
    key_length,
    BLOCK_N: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The lowest λb and its span, in base 2, and the columns of BLOCK_N keys of one row, a (batch, head).

    ``span_ptr`` is float32 [rows, 2], ``columns_ptr`` [rows, key_length, COLUMNS] in float16 or bfloat16. Each program
    scans all visible keys of its row: that is cheap beside a launch of its own.
    """
    blocks = tl.cdiv(key_length, BLOCK_N)
    block = tl.program_id(0) % blocks
    row = tl.cast(tl.program_id(0) // blocks, tl.int64)
    batch = row // heads
    head = row % heads
    bias_ptr = start_of(operands.bias, batch, head)
    strength_2 = tl.load(start_of(operands.strength, batch, head)) * LOG2_E
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length

    keys = tl.arange(0, SPAN_KEYS)
    least = tl.full([SPAN_KEYS], float("inf"), tl.float32)
    most = tl.full([SPAN_KEYS], float("-inf"), tl.float32)
    for start_n in tl.range(0, limit, SPAN_KEYS, num_stages=1):
        seen = start_n + keys < limit
        logit_bias = load_bias(bias_ptr, start_n, operands.bias.strides.figure, keys, limit, True) * strength_2
        least = tl.minimum(least, tl.where(seen, logit_bias, float("inf")))
        most = tl.maximum(most, tl.where(seen, logit_bias, float("-inf")))
    lowest = tl.where(limit > 0, tl.min(least, 0), 0.0)
    span = tl.where(limit > 0, tl.max(most, 0), 0.0) - lowest
    if block == 0:
        tl.store(span_ptr + 2 * row, lowest)
        tl.store(span_ptr + 2 * row + 1, span)

    start = block * BLOCK_N
    key_rows = tl.arange(0, BLOCK_N)
    bias = load_bias(bias_ptr, start, operands.bias.strides.figure, key_rows, limit, True)
    above = (bias * strength_2 - lowest)[:, None]
    dtype = columns_ptr.dtype.element_ty
    column_bits: tl.constexpr = COLUMN_BITS.value if dtype == tl.float16 else 0
    plain = tl.exp2(column_bits - above)
    high = plain.to(dtype).to(tl.float32)
    raised = plain * above
    raised_high = raised.to(dtype).to(tl.float32)
    index = tl.arange(0, COLUMNS)[None, :]
    columns = tl.where(index == 0, 1.0, 0.0)
    columns = tl.where(index == 1, high, columns)
    columns = tl.where(index == 2, plain - high, columns)
    columns = tl.where(index == 3, raised_high, columns)
    columns = tl.where(index == 4, raised - raised_high, columns)
    tl.store(
        columns_ptr + (row * key_length + start + key_rows)[:, None] * COLUMNS + index,
        columns.to(dtype),
        mask=(start + key_rows < limit)[:, None],
    )


class Running(NamedTuple):
    """What a program keeps of its rows from block to block: ``out`` [M, Dv], a maximum [M] and sums [M, COLUMNS]."""

    out: Any
    row_max: Any
    sums: Any
    moments: Any


@triton.jit
def _attend(
    running,
    operands,
    starts,
    query,
    scale_2,
    raise_bits,
    bias_factor,
    start_n,
    limit,
    last_key,
    is_query,
    key_rows,
    columns,
    value_columns,
    key_descriptor,
    value_descriptor,
    batch,
    kv_head,
    columns_ptr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    STATS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BIAS_EARLY: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Take one block of keys into the running rows; MASKED blocks are those that some query sees only in part.

    ``sums`` and ``moments`` [M, COLUMNS] are p and p log p against the columns, both relative to the running shift.
    """
    rows: tl.constexpr = query.shape[0]
    keys: tl.constexpr = key_rows.shape[0]
    if BIAS_EARLY:
        first = load_first(starts.bias, start_n, operands.bias.strides.figure, bias_factor, limit, rows, keys, MASKED)
    key = load_keys(
        key_descriptor, batch, kv_head, starts.key, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM,
        MASKED,
    )  # fmt: skip
    if not BIAS_EARLY:
        first = load_first(starts.bias, start_n, operands.bias.strides.figure, bias_factor, limit, rows, keys, MASKED)
    scores = dot(query, key.T, first)
    if MASKED:
        # The row that gathers eps sums sees none of these keys.
        visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL) & is_query[:, None]
        scores = tl.where(visible, scores, float("-inf"))
    new_max = tl.maximum(running.row_max, tl.max(scores, 1))
    shift = new_max * scale_2 - raise_bits
    logits = scores * scale_2 - shift[:, None]
    weights = tl.exp2(logits)
    # How far the old shift lies below the new one.
    behind = running.row_max * scale_2 - raise_bits - shift
    decay = tl.exp2(behind)

    sum_columns = load_tile(
        columns_ptr, RowStrides(0, 0, COLUMNS, 1), start_n, key_rows, limit, tl.arange(0, COLUMNS), COLUMNS, MASKED
    )
    counted = weights.to(sum_columns.dtype)
    moments = running.moments
    if STATS:
        if MASKED:
            # A hidden key's logit is -inf, and its weight of 0 must win.
            logits = tl.where(visible, logits, 0.0)
        # Moments are about the running shift: take them along to the new one.
        moments = (moments + running.sums * behind[:, None]) * decay[:, None]
        # In float16 two products are one instruction; of p as it is summed, so that its rounding matters little.
        moments = dot(counted * logits.to(counted.dtype), sum_columns, moments)
    sums = dot(counted, sum_columns, running.sums * decay[:, None])
    value = load_keys(
        value_descriptor, batch, kv_head, starts.value, operands.value.strides, start_n, key_rows, limit,
        value_columns, VALUE_DIM, MASKED,
    )  # fmt: skip
    out = dot(weights.to(value.dtype), value, running.out * decay[:, None])
    return Running(out, new_max, sums, moments)


@triton.jit
def _column(tile, first: tl.constexpr, last: tl.constexpr):
    """Sum of columns ``first`` to ``last`` of [M, N], as [M]."""
    index = tl.arange(0, tile.shape[1])[None, :]
    return tl.sum(tl.where((index >= first) & (index <= last), tile, 0.0), 1)


@triton.jit(do_not_specialize=SIZES)
def narrow_kernel(
    operands,
    forward,
    columns_ptr,
    span_ptr,
    key_descriptor,
    value_descriptor,
    stride_row_b,
    stride_row_h,
    scale,
    eps,
    batches,
    query_heads,
    group_size,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_EPS: tl.constexpr,
    STATS: tl.constexpr,
    NARROW: tl.constexpr,
    COLUMNS: tl.constexpr,
    BIAS_EARLY: tl.constexpr,
    ROWS_ANEW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """One block of queries of one head, where λb spans NARROW powers of two at most.

    Outputs as ``prefill_kernel``'s, or with HAS_EPS as ``floored_kernel``'s, whose BLOCK_M - 1 queries it takes, too.
    ``columns_ptr`` and ``span_ptr`` are what ``columns_kernel`` wrote; a (batch, head) finds its row by the two
    ``stride_row`` (rows, 0 where one row serves all).
    """
    queries: tl.constexpr = BLOCK_M - 1 if HAS_EPS else BLOCK_M
    blocks = tl.cdiv(query_length, queries)
    block, batch_head = query_block(tl.program_id(0), blocks, CAUSAL)
    batch = tl.cast(batch_head // query_heads, tl.int64)
    head = tl.cast(batch_head % query_heads, tl.int64)
    table_row = batch * stride_row_b + head * stride_row_h
    lowest = tl.load(span_ptr + 2 * table_row)
    span = tl.load(span_ptr + 2 * table_row + 1)
    if not (span <= NARROW):
        return
    kv_head = head // group_size
    starts = starts_of(operands, batch, head, kv_head)
    columns_ptr += table_row * key_length * COLUMNS
    strength = tl.load(starts.strength)

    start_m = block * queries
    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    masked_rows = tl.arange(0, MASKED_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    last_key = start_m + query_rows + (key_length - query_length)
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    full, end = key_range(start_m, query_length, key_length, limit, CAUSAL, queries, BLOCK_N)

    is_query = query_rows < queries
    last_query = tl.minimum(query_length, start_m + queries)
    query = load_tile(starts.query, operands.query.strides, start_m, query_rows, last_query, columns, HEAD_DIM, True)
    scale_2 = scale * LOG2_E
    # Float16 weights are raised so that those that are large without steering keep their precision. With statistics by
    # half the span alone: log p, whose rounding they feel, is smallest about the middle.
    column_bits: tl.constexpr = COLUMN_BITS.value if columns_ptr.dtype.element_ty == tl.float16 else 0
    raise_bits = tl.ceil(span * (0.5 if STATS else 1.0)) if column_bits > 0 else 0.0

    row_max = tl.full([BLOCK_M], lowest_score(scale_2), tl.float32)
    zeros = tl.zeros([BLOCK_M, COLUMNS], tl.float32)
    running = Running(tl.zeros([BLOCK_M, BLOCK_DV], tl.float32), row_max, zeros, zeros)
    for start_n in tl.range(0, full, BLOCK_N):
        running = _attend(
            running, operands, starts, query, scale_2, raise_bits, strength / scale, start_n, limit, last_key,
            is_query, key_rows, columns, value_columns, key_descriptor, value_descriptor, batch, kv_head,
            columns_ptr, HEAD_DIM, VALUE_DIM, CAUSAL, STATS, COLUMNS, BIAS_EARLY, MASKED=False,
        )  # fmt: skip
    for start_n in tl.range(full, end, MASKED_N, num_stages=1):
        running = _attend(
            running, operands, starts, query, scale_2, raise_bits, strength / scale, start_n, limit, last_key,
            is_query, masked_rows, columns, value_columns, key_descriptor, value_descriptor, batch, kv_head,
            columns_ptr, HEAD_DIM, VALUE_DIM, CAUSAL, STATS, COLUMNS, BIAS_EARLY, MASKED=True,
        )  # fmt: skip
    out = running.out
    sums = running.sums

    if ROWS_ANEW:
        block, batch_head = query_block(program_again(), blocks, CAUSAL)
        start_m = block * queries
        last_query = tl.minimum(query_length, start_m + queries)
        lowest = tl.load(span_ptr + 2 * table_row, volatile=True)
    steered_sum = _column(sums, 0, 0)
    # With λb less its lowest as the bias, the plain sum has the same shift as the steered one.
    plain_sum = _column(sums, 1, 2) * 2.0**-column_bits
    seen = steered_sum > 0
    steered_total = tl.where(seen, steered_sum, 1.0)
    plain_total = tl.where(seen, plain_sum, 1.0)
    shift = running.row_max * scale_2 - raise_bits
    lse = shift - lowest + tl.log2(plain_total)
    lse_steered = shift + tl.log2(steered_total)
    in_range = start_m + query_rows < last_query
    row = tl.cast(batch_head, tl.int64) * query_length + start_m + query_rows
    tl.store(forward.lse + row, tl.where(seen, (lse if HAS_EPS else lse_steered) * LN_2, float("-inf")), mask=in_range)
    if STATS:
        mean_above = _column(sums, 3, 4) * 2.0**-column_bits / plain_total
        plain_moment = _column(running.moments, 1, 2) * 2.0**-column_bits / plain_total
        store_figures(
            forward.stats, row, tl.cast(batches, tl.int64) * query_heads * query_length, in_range, seen, lse,
            lse_steered,
            tl.log2(plain_total) - plain_moment + mean_above,
            tl.log2(steered_total) - _column(running.moments, 0, 0) / steered_total,
            tl.log2(steered_total) - tl.log2(plain_total) - mean_above,
        )  # fmt: skip

    # From here all w are relative to the lowest, and all sums divided by ``unit``, so that eps need not survive in the
    # values' dtype. As ``Σ A w`` is 1 at least, an eps below 2^-30 may be lost there.
    mass = steered_total
    unit = tl.maximum(eps, 2.0**-30)
    if HAS_EPS:
        # Of the keys that all queries see, the last row has Σ w and Σ w v, about a shift of its own.
        gathered_shift = tl.sum(tl.where(is_query, 0.0, shift), 0) - lowest
        shared = tl.where(full > 0, tl.exp2(gathered_shift), 0.0) * (eps / unit)
        # In halves: the whole tile twice, in registers, would spill on sm_100.
        left, right = tl.split(tl.permute(tl.reshape(out, [BLOCK_M, 2, BLOCK_DV // 2]), (0, 2, 1)))
        left = tl.sum(tl.where(is_query[:, None], 0.0, left), 0)
        right = tl.sum(tl.where(is_query[:, None], 0.0, right), 0)
        shared_value = tl.reshape(tl.permute(tl.join(left, right), (1, 0)), [BLOCK_DV])
        # As a row for each query: Triton 3.7.1 cannot reduce what lay in tensor memory to one number.
        shared_sum = tl.sum(tl.where(is_query[:, None], 0.0, sums), 0)
        shared_sum = _column(tl.broadcast_to(shared_sum[None, :], [BLOCK_M, COLUMNS]), 0, 0)
        normaliser = 1.0 / (plain_total * unit)
        mass = steered_total * normaliser + shared * shared_sum
        out = out * normaliser[:, None] + shared * shared_value[None, :]
        for start_n in tl.range(full, end, MASKED_N, num_stages=1):
            logit_bias = (strength * LOG2_E) * load_bias(
                starts.bias, start_n, operands.bias.strides.figure, masked_rows, limit, True
            )
            value = load_tile(
                starts.value, operands.value.strides, start_n, masked_rows, limit, value_columns, VALUE_DIM, True
            )
            visible = visible_keys(start_n + masked_rows, limit, last_key, CAUSAL) & is_query[:, None]
            raised = tl.where(visible, (tl.exp2(logit_bias - lowest) * (eps / unit))[None, :], 0.0)
            mass += tl.sum(raised, 1)
            out = dot(raised.to(value.dtype), value, out)
        norm = lowest + tl.log2(tl.where(seen, mass, 1.0)) + tl.log2(unit)
        tl.store(forward.norm + row, norm * LN_2, mask=in_range)
    out = out / tl.where(seen, mass, 1.0)[:, None]
    tl.store(
        forward.out + row[:, None] * VALUE_DIM + value_columns[None, :],
        out.to(forward.out.dtype.element_ty),
        mask=in_range[:, None] & (value_columns < VALUE_DIM)[None, :],
    )

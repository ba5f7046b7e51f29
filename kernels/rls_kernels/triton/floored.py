"""Prefill with the published floor: ``softmax(log(A + eps) + λb)``, exact in one pass over visible keys.

With ``w = exp(λb)`` the published form is ``(Σ A w v + eps Σ w v) / (Σ A w + eps Σ w)``. The loop keeps plain scores
and multiplies their exponentials by ``w``. The eps sums hold no score: ``Σ w v`` is what a query of zeros, whose
exponentials are all 1, gathers. So the last row of each block is such a query, and the sum over keys that the whole
block sees costs no instruction a score. In the few blocks where queries see different keys the sums differ by row;
their values are read once more, after the normaliser of A is known.

``w`` is shifted by the largest λb **that the query sees**: one huge future key must not underflow every early ``w``.
The largest visible ``w`` being 1, ``eps Σ w`` is at least eps: what underflows float32 in A was never of weight.
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
    finite,
    key_range,
    key_row,
    load_bias,
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

# Columns of a row sum that the matrix unit does: the fewest that it takes.
SUM_COLUMNS = tl.constexpr(16)
# Biases read at a time to find the largest.
SHIFT_KEYS = tl.constexpr(1024)


class Running(NamedTuple):
    """What a program keeps of its rows from block to block: ``out`` [M, Dv], a maximum [M] and sums [M, some]."""

    out: Any
    row_max: Any
    plain_sum: Any
    steered_sum: Any
    plain_moment: Any
    moment: Any
    bias_sum: Any


@triton.jit
def _hidden_bias(
    start_n,
    limit,
    last_key,
    key_rows,
    bias_ptr,
    stride_bias_n,
    strength_2,
    is_query,
    CAUSAL: tl.constexpr,
    PER_QUERY: tl.constexpr,
):
    """λb in base 2, [1 or M, N], the same with -inf where a query does not see the key, and which it sees, [M, N].

    The row that gathers eps sums sees none of these keys.
    """
    bias = load_bias(bias_ptr, start_n, stride_bias_n, key_rows, limit, True)
    logit_bias = strength_2[:, None] * bias[None, :] if PER_QUERY else (strength_2 * bias)[None, :]
    visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL) & is_query[:, None]
    return logit_bias, tl.where(visible, logit_bias, float("-inf")), visible


@triton.jit
def _attend(
    running,
    scores,
    scale_2,
    raised,
    logit_bias,
    weight_shift,
    new_weight_shift,
    visible,
    value,
    PARTIALS: tl.constexpr,
    SUM_BY_DOT: tl.constexpr,
    STATS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Take the ``scores`` of one block of keys into the running rows.

    ``raised`` [1 or M, N] is w relative to ``new_weight_shift``, 0 for hidden keys, and ``logit_bias`` λb; the shifts
    are scalars until blocks are MASKED, then [M].
    """
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new_max = tl.maximum(running.row_max, tl.max(scores, 1))
    shift = new_max * scale_2
    logits = scores * scale_2 - shift[:, None]
    plain = tl.exp2(logits)
    # How far the old shift lies below the new one.
    behind = running.row_max * scale_2 - shift
    decay = tl.exp2(behind)
    weights = plain * raised
    steered_decay = decay * tl.exp2(weight_shift - finite(new_weight_shift)) if MASKED else decay

    plain_moment = running.plain_moment
    moment = running.moment
    bias_sum = running.bias_sum
    if STATS:
        # Moments are about the running shifts: take them along to the new ones.
        steered_behind = behind + finite(weight_shift) - finite(new_weight_shift)
        steered_logits = logits + logit_bias - (finite(new_weight_shift)[:, None] if MASKED else new_weight_shift)
        if MASKED:
            # A hidden key's logit is -inf, and its weight of 0 must win.
            logits = tl.where(visible, logits, 0.0)
            steered_logits = tl.where(visible, steered_logits, 0.0)
        plain_moment = (plain_moment + running.plain_sum * behind[:, None]) * decay[:, None]
        plain_moment += sum_rows(plain * logits, PARTIALS)
        moment = (moment + running.steered_sum * steered_behind[:, None]) * steered_decay[:, None]
        moment += sum_rows(weights * steered_logits, PARTIALS)
        bias_sum = bias_sum * decay[:, None] + sum_rows(plain * logit_bias, PARTIALS)

    plain_sum = running.plain_sum * decay[:, None] + sum_rows(plain, PARTIALS)
    if SUM_BY_DOT:
        ones = tl.full([value.shape[0], SUM_COLUMNS], 1.0, tl.float32).to(value.dtype)
        steered_sum = dot(weights.to(value.dtype), ones, running.steered_sum * steered_decay[:, None])
    else:
        steered_sum = running.steered_sum * steered_decay[:, None] + sum_rows(weights, PARTIALS)
    out = dot(weights.to(value.dtype), value, running.out * steered_decay[:, None])
    return Running(out, new_max, plain_sum, steered_sum, plain_moment, moment, bias_sum)


@triton.jit(do_not_specialize=SIZES)
def floored_kernel(
    operands,
    forward,
    span_ptr,
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
    PER_QUERY: tl.constexpr,
    STATS: tl.constexpr,
    WIDER_THAN: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
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
    """One block of BLOCK_M - 1 queries of one head.

    As ``prefill_kernel``, but ``lse`` takes the plain log-sum-exp, and ``norm`` the log of ``Σ (A + eps) w``.
    ``WEIGHT_BITS`` raises the largest ``w`` to that power of two, which float16's range needs.
    """
    queries: tl.constexpr = BLOCK_M - 1
    blocks = tl.cdiv(query_length, queries)
    block, batch_head = query_block(tl.program_id(0), blocks, CAUSAL)
    batch = tl.cast(batch_head // query_heads, tl.int64)
    head = tl.cast(batch_head % query_heads, tl.int64)
    if WIDER_THAN is not None:
        span = tl.load(span_ptr + 2 * (batch * stride_row_b + head * stride_row_h) + 1)
        # The narrow kernel does this head.
        if span <= WIDER_THAN:
            return
    starts = starts_of(operands, batch, head, head // group_size)

    start_m = block * queries
    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    last_key = start_m + query_rows + (key_length - query_length)
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    full, end = key_range(start_m, query_length, key_length, limit, CAUSAL, queries, BLOCK_N)
    if PER_QUERY:
        # Every row has weights of its own, also where all see the same keys: the loop of masked blocks does them all.
        full = 0
    masked_n: tl.constexpr = BLOCK_N if PER_QUERY else MASKED_N
    masked_rows = tl.arange(0, masked_n)

    is_query = query_rows < queries
    last_query = tl.minimum(query_length, start_m + queries)
    in_block = start_m + query_rows < last_query
    if SLICE_D is None:
        query = load_tile(
            starts.query, operands.query.strides, start_m, query_rows, last_query, columns, HEAD_DIM, True
        )
    else:
        query = starts.query + tl.cast(start_m + query_rows, tl.int64) * operands.query.strides.row
    scale_2 = scale * LOG2_E
    if PER_QUERY:
        strength_2 = LOG2_E * load_row(
            starts.strength, start_m, operands.strength.strides.figure, query_rows, query_length, True
        )
    else:
        strength_2 = tl.load(starts.strength) * LOG2_E

    row_max = tl.full([BLOCK_M], lowest_score(scale_2), tl.float32)
    zeros = tl.zeros([BLOCK_M, PARTIALS], tl.float32)
    sums = tl.zeros([BLOCK_M, SUM_COLUMNS], tl.float32) if SUM_BY_DOT else zeros
    running = Running(tl.zeros([BLOCK_M, BLOCK_DV], tl.float32), row_max, zeros, sums, zeros, zeros, zeros)
    # Of the keys that all rows see: the largest λb less WEIGHT_BITS, known ahead so that no block of keys reduces it,
    # and Σ w.
    many_keys = tl.arange(0, SHIFT_KEYS)
    largest = tl.full([SHIFT_KEYS], float("-inf"), tl.float32)
    if not PER_QUERY:
        for start_n in tl.range(0, full, SHIFT_KEYS, num_stages=1):
            bias = load_bias(starts.bias, start_n, operands.bias.strides.figure, many_keys, full, True) * strength_2
            largest = tl.maximum(largest, tl.where(start_n + many_keys < full, bias, float("-inf")))
    weight_shift = tl.max(largest, 0) - WEIGHT_BITS
    raised = tl.zeros([SHIFT_KEYS], tl.float32)
    if not PER_QUERY:
        for start_n in tl.range(0, full, SHIFT_KEYS, num_stages=1):
            bias = load_bias(starts.bias, start_n, operands.bias.strides.figure, many_keys, full, True) * strength_2
            raised += tl.where(start_n + many_keys < full, tl.exp2(bias - weight_shift), 0.0)
    weight_sum = tl.sum(raised, 0)
    if not PER_QUERY:
        for start_n in tl.range(0, full, BLOCK_N):
            bias = load_bias(starts.bias, start_n, operands.bias.strides.figure, key_rows, limit, False) * strength_2
            key = 0.0
            if SLICE_D is None:
                key = load_tile(starts.key, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM, False)
            value = load_tile(
                starts.value, operands.value.strides, start_n, key_rows, limit, value_columns, VALUE_DIM, False
            )
            scores = dot_rows(
                query, key, operands.query.strides.column, in_block, starts.key, operands.key.strides, start_n,
                key_rows, limit, HEAD_DIM, SLICE_D,
            )  # fmt: skip
            running = _attend(
                running, scores, scale_2, key_row(tl.exp2(bias - weight_shift)), key_row(bias) if STATS else 0.0,
                weight_shift, weight_shift, True, value, PARTIALS, SUM_BY_DOT, STATS, MASKED=False,
            )  # fmt: skip

    row_shift = tl.full([BLOCK_M], 0.0, tl.float32) + weight_shift
    for start_n in tl.range(full, end, masked_n, num_stages=1):
        logit_bias, hidden_bias, visible = _hidden_bias(
            start_n, limit, last_key, masked_rows, starts.bias, operands.bias.strides.figure, strength_2, is_query,
            CAUSAL, PER_QUERY,
        )  # fmt: skip
        new_row_shift = tl.maximum(row_shift, tl.max(hidden_bias, 1) - WEIGHT_BITS)
        key = 0.0
        if SLICE_D is None:
            key = load_tile(starts.key, operands.key.strides, start_n, masked_rows, limit, columns, HEAD_DIM, True)
        value = load_tile(
            starts.value, operands.value.strides, start_n, masked_rows, limit, value_columns, VALUE_DIM, True
        )
        scores = dot_rows(
            query, key, operands.query.strides.column, in_block, starts.key, operands.key.strides, start_n,
            masked_rows, limit, HEAD_DIM, SLICE_D,
        )  # fmt: skip
        running = _attend(
            running, scores, scale_2, tl.exp2(hidden_bias - finite(new_row_shift)[:, None]), logit_bias, row_shift,
            new_row_shift, visible, value, PARTIALS, SUM_BY_DOT, STATS, MASKED=True,
        )  # fmt: skip
        row_shift = new_row_shift

    total = tl.sum(running.plain_sum, 1)
    seen = total > 0
    plain_total = tl.where(seen, total, 1.0)
    # By dot, every column of the sum holds all of it.
    steered_total = tl.sum(running.steered_sum, 1) / SUM_COLUMNS if SUM_BY_DOT else tl.sum(running.steered_sum, 1)
    shared_value = tl.sum(tl.where(is_query[:, None], 0.0, running.out), 0)
    row_shift = finite(row_shift)

    # out = Σ A w v + eps Σ w v and mass = Σ A w + eps Σ w, all relative to the row's final weight shift.
    shared = tl.exp2(weight_shift - row_shift) * eps
    out = running.out / plain_total[:, None] + shared[:, None] * shared_value[None, :]
    mass = steered_total / plain_total + shared * weight_sum
    for start_n in tl.range(full, end, masked_n, num_stages=1):
        logit_bias, hidden_bias, visible = _hidden_bias(
            start_n, limit, last_key, masked_rows, starts.bias, operands.bias.strides.figure, strength_2, is_query,
            CAUSAL, PER_QUERY,
        )  # fmt: skip
        value = load_tile(
            starts.value, operands.value.strides, start_n, masked_rows, limit, value_columns, VALUE_DIM, True
        )
        weights = tl.exp2(hidden_bias - row_shift[:, None])
        mass += eps * tl.sum(weights, 1)
        out += eps * dot(weights.to(value.dtype), value, tl.zeros_like(out))

    if ROWS_ANEW:
        block, batch_head = query_block(program_again(), blocks, CAUSAL)
        start_m = block * queries
        last_query = tl.minimum(query_length, start_m + queries)
    in_range = start_m + query_rows < last_query
    row = tl.cast(batch_head, tl.int64) * query_length + start_m + query_rows
    shift = running.row_max * scale_2
    tl.store(forward.lse + row, tl.where(seen, (shift + tl.log2(plain_total)) * LN_2, float("-inf")), mask=in_range)
    mass = tl.where(seen, mass, 1.0)
    tl.store(forward.norm + row, (row_shift + tl.log2(mass)) * LN_2, mask=in_range)
    if STATS:
        rows_total = tl.cast(batches, tl.int64) * query_heads * query_length
        store_stats(
            forward.stats, row, rows_total, in_range, seen, shift, total, tl.sum(running.plain_moment, 1),
            tl.sum(running.bias_sum, 1), shift + row_shift, steered_total, tl.sum(running.moment, 1),
        )  # fmt: skip
    tl.store(
        forward.out + row[:, None] * VALUE_DIM + value_columns[None, :],
        (out / mass[:, None]).to(forward.out.dtype.element_ty),
        mask=in_range[:, None] & (value_columns < VALUE_DIM)[None, :],
    )

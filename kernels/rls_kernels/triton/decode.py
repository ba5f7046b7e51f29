"""Steered attention for few queries over a long cache: the keys are split over programs, and a second kernel reduces.

All query heads of a KV group, and all of their queries, are the rows of one tile, so that each key and value is read
once a group. Memory is the limit here, so λb is added after the dot, a λ and a bias for each row, in every layout.

With eps, ``Σ w v`` over the visible keys takes a second accumulator; ``A w`` is the steered weight times
``exp(lse_steered - lse)``, so ``out = (A w v + eps Σ w v) / (A w + eps Σ w)`` needs only sums that splits can
add.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rls_kernels.triton.operands import SIZES
from rls_kernels.triton.tiles import LN_2, LOG2_E, dot, dot_rows, finite, load_tile, start_of, store_stats

# What a split leaves of each row: maximum and sum of the steered weights; of the plain ones; of w; and three moments.
ROW_FIGURES = tl.constexpr(9)


@triton.jit(do_not_specialize=SIZES)
def decode_kernel(
    operands,
    partial_out_ptr,
    partial_weighted_ptr,
    partial_rows_ptr,
    scale,
    batches,
    query_heads,
    group_size,
    query_length,
    key_length,
    split_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEERED: tl.constexpr,
    BIAS_PER_HEAD: tl.constexpr,
    HAS_EPS: tl.constexpr,
    STATS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    SLICE_D: tl.constexpr,
):
    """One split of the keys (``split_length`` of them, a multiple of BLOCK_N) of one KV head.

    With R = B·Hq·Lq rows in the order of [B, Hq, Lq], ``partial_out_ptr`` and ``partial_weighted_ptr`` are float32
    [splits, R, VALUE_DIM], ``partial_rows_ptr`` float32 [splits, ROW_FIGURES, R]; all in base 2.
    """
    kv_heads = query_heads // group_size
    batch = tl.cast(tl.program_id(0) // kv_heads, tl.int64)
    kv_head = tl.cast(tl.program_id(0) % kv_heads, tl.int64)
    split = tl.cast(tl.program_id(1), tl.int64)

    # Row r is query r % Lq of the group's head r // Lq.
    rows = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_range = rows < group_size * query_length
    head = kv_head * group_size + rows // query_length
    position = rows % query_length
    key_rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    last_key = position + (key_length - query_length)

    # Where each row's query starts [M], or with SLICE_D None the whole tile.
    query = operands.query.ptr + batch * operands.query.strides.batch
    query = query + (head * operands.query.strides.head + position * operands.query.strides.row)
    if SLICE_D is None:
        query = tl.load(
            query[:, None] + columns[None, :] * operands.query.strides.column,
            mask=in_range[:, None] & (columns < HEAD_DIM)[None, :],
            other=0.0,
        )
    key_ptr = start_of(operands.key, batch, kv_head)
    value_ptr = start_of(operands.value, batch, kv_head)
    bias_ptr = operands.bias.ptr + batch * operands.bias.strides.batch
    scale_2 = scale * LOG2_E
    if STEERED:
        strength = tl.load(
            start_of(operands.strength, batch, head) + position * operands.strength.strides.figure,
            mask=in_range,
            other=0.0,
        )
        strength_2 = strength * LOG2_E

    out = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    weighted = out
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    plain_max = row_max
    plain_sum = row_sum
    weight_max = row_max
    weight_sum = row_sum
    moment = row_sum
    plain_moment = row_sum
    bias_sum = row_sum
    start = tl.program_id(1) * split_length
    for start_n in tl.range(start, tl.minimum(start + split_length, limit), BLOCK_N):
        keys = start_n + key_rows
        visible = in_range[:, None] & (keys < limit)[None, :]
        if CAUSAL:
            visible = visible & (keys[None, :] <= last_key[:, None])
        key = 0.0
        if SLICE_D is None:
            key = load_tile(key_ptr, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM, True)
        value = load_tile(value_ptr, operands.value.strides, start_n, key_rows, limit, value_columns, VALUE_DIM, True)
        plain = dot_rows(
            query, key, operands.query.strides.column, in_range, key_ptr, operands.key.strides, start_n, key_rows,
            limit, HEAD_DIM, SLICE_D,
        ) * scale_2  # fmt: skip
        logit_bias = tl.zeros_like(plain)
        if STEERED:
            bias_row = bias_ptr + tl.cast(keys, tl.int64) * operands.bias.strides.figure
            if BIAS_PER_HEAD:
                pointers = bias_row[None, :] + (head * operands.bias.strides.head)[:, None]
                logit_bias = strength_2[:, None] * tl.load(pointers, mask=visible, other=0.0)
            else:
                logit_bias = strength_2[:, None] * tl.load(bias_row, mask=keys < limit, other=0.0)[None, :]

        logits = tl.where(visible, plain + logit_bias, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(logits, 1))
        logits = logits - finite(new_max)[:, None]
        weights = tl.exp2(logits)
        decay = tl.exp2(row_max - finite(new_max))
        out = dot(weights.to(value.dtype), value, out * decay[:, None])

        if HAS_EPS or STATS:
            plain = tl.where(visible, plain, float("-inf"))
            new_plain_max = tl.maximum(plain_max, tl.max(plain, 1))
            plain = plain - finite(new_plain_max)[:, None]
            plain_weights = tl.exp2(plain)
            plain_decay = tl.exp2(plain_max - finite(new_plain_max))
        if STATS:
            # Moments are about the running shift: take them along to the new one.
            moment = (moment + row_sum * (finite(row_max) - finite(new_max))) * decay
            moment += tl.sum(weights * tl.where(visible, logits, 0.0), 1)
            plain_moment = (plain_moment + plain_sum * (finite(plain_max) - finite(new_plain_max))) * plain_decay
            plain_moment += tl.sum(plain_weights * tl.where(visible, plain, 0.0), 1)
            bias_sum = bias_sum * plain_decay + tl.sum(plain_weights * logit_bias, 1)
        if HAS_EPS or STATS:
            plain_sum = plain_sum * plain_decay + tl.sum(plain_weights, 1)
            plain_max = new_plain_max
        if HAS_EPS:
            hidden = tl.where(visible, logit_bias, float("-inf"))
            new_weight_max = tl.maximum(weight_max, tl.max(hidden, 1))
            raised = tl.exp2(hidden - finite(new_weight_max)[:, None])
            weight_decay = tl.exp2(weight_max - finite(new_weight_max))
            weight_sum = weight_sum * weight_decay + tl.sum(raised, 1)
            weighted = dot(raised.to(value.dtype), value, weighted * weight_decay[:, None])
            weight_max = new_weight_max
        row_sum = row_sum * decay + tl.sum(weights, 1)
        row_max = new_max

    row = (batch * query_heads + head) * query_length + position
    rows_total = tl.cast(batches, tl.int64) * query_heads * query_length
    tile = (split * rows_total + row)[:, None] * VALUE_DIM + value_columns[None, :]
    tile_mask = in_range[:, None] & (value_columns < VALUE_DIM)[None, :]
    tl.store(partial_out_ptr + tile, out, mask=tile_mask)
    figures = partial_rows_ptr + split * ROW_FIGURES * rows_total + row
    tl.store(figures, row_max, mask=in_range)
    tl.store(figures + rows_total, row_sum, mask=in_range)
    if HAS_EPS or STATS:
        tl.store(figures + 2 * rows_total, plain_max, mask=in_range)
        tl.store(figures + 3 * rows_total, plain_sum, mask=in_range)
    if HAS_EPS:
        tl.store(partial_weighted_ptr + tile, weighted, mask=tile_mask)
        tl.store(figures + 4 * rows_total, weight_max, mask=in_range)
        tl.store(figures + 5 * rows_total, weight_sum, mask=in_range)
    if STATS:
        tl.store(figures + 6 * rows_total, moment, mask=in_range)
        tl.store(figures + 7 * rows_total, plain_moment, mask=in_range)
        tl.store(figures + 8 * rows_total, bias_sum, mask=in_range)


@triton.jit
def _merge(figures, index: tl.constexpr, rows_total, split_mask):
    """Maximum over the splits, and what each split's sums are multiplied by to be relative to it."""
    maxima = tl.load(figures + index * rows_total, mask=split_mask, other=float("-inf"))
    most = finite(tl.max(maxima, 0))
    return maxima, most, tl.exp2(maxima - most)


@triton.jit
def _merge_sum(figures, index: tl.constexpr, rows_total, split_mask, factor):
    return tl.sum(tl.load(figures + index * rows_total, mask=split_mask, other=0.0) * factor, 0)


@triton.jit
def _merge_moment(figures, index: tl.constexpr, sum_index: tl.constexpr, rows_total, split_mask, maxima, most, factor):
    """A moment about each split's own maximum, taken to the common one."""
    moments = tl.load(figures + index * rows_total, mask=split_mask, other=0.0)
    sums = tl.load(figures + sum_index * rows_total, mask=split_mask, other=0.0)
    return tl.sum((moments + sums * (finite(maxima) - most)) * factor, 0)


@triton.jit(do_not_specialize=SIZES)
def reduce_kernel(
    partial_out_ptr,
    partial_weighted_ptr,
    partial_rows_ptr,
    forward,
    eps,
    rows_total,
    splits,
    VALUE_DIM: tl.constexpr,
    HAS_EPS: tl.constexpr,
    STATS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Join the splits of one row; ``forward`` as of the prefill kernels."""
    row = tl.cast(tl.program_id(0), tl.int64)
    rows_total = tl.cast(rows_total, tl.int64)
    split = tl.cast(tl.arange(0, BLOCK_S), tl.int64)
    split_mask = split < splits
    columns = tl.arange(0, BLOCK_DV)
    figures = partial_rows_ptr + split * ROW_FIGURES * rows_total + row
    tile = (split * rows_total + row)[:, None] * VALUE_DIM + columns[None, :]
    tile_mask = split_mask[:, None] & (columns < VALUE_DIM)[None, :]

    maxima, most, factor = _merge(figures, 0, rows_total, split_mask)
    total = _merge_sum(figures, 1, rows_total, split_mask, factor)
    seen = total > 0
    divisor = tl.where(seen, total, 1.0)
    out = tl.sum(tl.load(partial_out_ptr + tile, mask=tile_mask, other=0.0) * factor[:, None], 0) / divisor
    lse_2 = most + tl.log2(divisor)
    if HAS_EPS or STATS:
        plain_maxima, plain_most, plain_factor = _merge(figures, 2, rows_total, split_mask)
        plain_sum = _merge_sum(figures, 3, rows_total, split_mask, plain_factor)
        plain_lse_2 = plain_most + tl.log2(tl.where(seen, plain_sum, 1.0))
    if STATS:
        moment = _merge_moment(figures, 6, 1, rows_total, split_mask, maxima, most, factor)
        plain_moment = _merge_moment(figures, 7, 3, rows_total, split_mask, plain_maxima, plain_most, plain_factor)
        bias_sum = _merge_sum(figures, 8, rows_total, split_mask, plain_factor)
        store_stats(
            forward.stats,
            row,
            rows_total,
            True,
            seen,
            plain_most,
            plain_sum,
            plain_moment,
            bias_sum,
            most,
            total,
            moment,
        )
    if HAS_EPS:
        _, weight_most, weight_factor = _merge(figures, 4, rows_total, split_mask)
        weight_sum = _merge_sum(figures, 5, rows_total, split_mask, weight_factor)
        weighted = tl.load(partial_weighted_ptr + tile, mask=tile_mask, other=0.0)
        # Σ A w, relative to the largest visible w.
        steered = tl.exp2(lse_2 - plain_lse_2 - weight_most)
        mass = tl.where(seen, steered + eps * weight_sum, 1.0)
        out = (steered * out + eps * tl.sum(weighted * weight_factor[:, None], 0)) / mass
        tl.store(forward.norm + row, (weight_most + tl.log2(mass)) * LN_2)
        lse_2 = plain_lse_2
    tl.store(forward.lse + row, tl.where(seen, lse_2 * LN_2, float("-inf")))
    tl.store(
        forward.out + row * VALUE_DIM + columns,
        tl.where(seen, out, 0.0).to(forward.out.dtype.element_ty),
        mask=columns < VALUE_DIM,
    )

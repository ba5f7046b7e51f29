"""Gradients of steered attention, recomputing the weights from saved row figures: no Lq × Lk memory.

Two kernels, and no atomics: one walks the keys for each block of queries (dq, dλ), the other the queries for each block
of keys (dk, dv, db). Each output element is written by one program in a fixed order, so gradients are the same every
time.

With the weights ``c = A w / Σ A w``, ``g = c (dout·v - dout·out)`` is the gradient of ``Z + λb``. With the floor,
``c = (A + eps) w / N``: g is still the gradient of λb, and that of Z is ``t - A Σ t`` with
``t = A w / N (dout·v - dout·out)``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rls_kernels.triton.operands import SIZES, RowStrides
from rls_kernels.triton.tiles import (
    LOG2_E,
    dot,
    dot_rows,
    key_range,
    load_row,
    load_tile,
    start_of,
    starts_of,
    visible_keys,
)


@triton.jit
def _weights(plain_2, logit_bias_2, lse_2, norm_2, eps, visible, HAS_EPS: tl.constexpr):
    """A (or with eps 0 nothing of use), ``A w / N`` and the weights c, float32 [M, N]; hidden keys are 0."""
    if not HAS_EPS:
        steered = tl.where(visible, tl.exp2(plain_2 + logit_bias_2 - lse_2[:, None]), 0.0)
        return steered, steered, steered
    plain = tl.where(visible, tl.exp2(plain_2 - lse_2[:, None]), 0.0)
    raised = tl.where(visible, tl.exp2(logit_bias_2 - norm_2[:, None]), 0.0)
    return plain, plain * raised, (plain + eps) * raised


@triton.jit(do_not_specialize=SIZES)
def query_gradient_kernel(
    operands,
    saved,
    query_gradient_ptr,
    strength_gradient_ptr,
    scale,
    eps,
    query_heads,
    group_size,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    PER_QUERY: tl.constexpr,
    HAS_EPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    SLICE_D: tl.constexpr,
):
    """dq [B, Hq, Lq, HEAD_DIM] and dλ of each row, float32 [B, Hq, Lq], for one block of queries.

    With eps the row sums of t are left in ``saved.residual`` for the other kernel.
    """
    blocks = tl.cdiv(query_length, BLOCK_M)
    start_m = (tl.program_id(0) % blocks) * BLOCK_M
    batch_head = tl.program_id(0) // blocks
    batch = tl.cast(batch_head // query_heads, tl.int64)
    head = tl.cast(batch_head % query_heads, tl.int64)
    starts = starts_of(operands, batch, head, head // group_size)
    first_row = tl.cast(batch_head, tl.int64) * query_length

    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    last_key = start_m + query_rows + (key_length - query_length)
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    end = key_range(start_m, query_length, key_length, limit, CAUSAL, BLOCK_M, BLOCK_N)[1]

    in_range = start_m + query_rows < query_length
    row = first_row + start_m + query_rows
    if SLICE_D is None:
        query = load_tile(
            starts.query, operands.query.strides, start_m, query_rows, query_length, columns, HEAD_DIM, True
        )
        gradient = load_tile(
            saved.gradient + first_row * VALUE_DIM, RowStrides(0, 0, VALUE_DIM, 1), start_m, query_rows, query_length,
            value_columns, VALUE_DIM, True,
        )  # fmt: skip
    else:
        query = starts.query + tl.cast(start_m + query_rows, tl.int64) * operands.query.strides.row
        gradient = saved.gradient + row * VALUE_DIM
    lse_2 = load_row(saved.lse + first_row, start_m, 1, query_rows, query_length, True) * LOG2_E
    delta = load_row(saved.delta + first_row, start_m, 1, query_rows, query_length, True)
    norm_2 = lse_2
    if HAS_EPS:
        norm_2 = load_row(saved.norm + first_row, start_m, 1, query_rows, query_length, True) * LOG2_E
    if PER_QUERY:
        strength = load_row(
            starts.strength, start_m, operands.strength.strides.figure, query_rows, query_length, True
        )[:, None]  # fmt: skip
    else:
        strength = tl.load(starts.strength)

    residual = tl.zeros([BLOCK_M], tl.float32)
    if HAS_EPS:
        for start_n in tl.range(0, end, BLOCK_N):
            key = load_tile(starts.key, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM, True)
            value = load_tile(
                starts.value, operands.value.strides, start_n, key_rows, limit, value_columns, VALUE_DIM, True
            )
            bias = load_row(starts.bias, start_n, operands.bias.strides.figure, key_rows, limit, True)[None, :]
            visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL)
            plain_2 = (scale * LOG2_E) * dot_rows(
                query, key, operands.query.strides.column, in_range, starts.key, operands.key.strides, start_n,
                key_rows, limit, HEAD_DIM, SLICE_D,
            )  # fmt: skip
            product = dot_rows(
                gradient, value, 1, in_range, starts.value, operands.value.strides, start_n, key_rows, limit,
                VALUE_DIM, SLICE_D,
            )  # fmt: skip
            steered = _weights(plain_2, strength * bias * LOG2_E, lse_2, norm_2, eps, visible, HAS_EPS)[1]
            residual += tl.sum(steered * (product - delta[:, None]), 1)

    query_gradient = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    strength_gradient = tl.zeros([BLOCK_M], tl.float32)
    for start_n in tl.range(0, end, BLOCK_N):
        key = load_tile(starts.key, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM, True)
        value = load_tile(
            starts.value, operands.value.strides, start_n, key_rows, limit, value_columns, VALUE_DIM, True
        )
        bias = load_row(starts.bias, start_n, operands.bias.strides.figure, key_rows, limit, True)[None, :]
        visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL)
        plain_2 = (scale * LOG2_E) * dot_rows(
            query, key, operands.query.strides.column, in_range, starts.key, operands.key.strides, start_n,
            key_rows, limit, HEAD_DIM, SLICE_D,
        )  # fmt: skip
        product = dot_rows(
            gradient, value, 1, in_range, starts.value, operands.value.strides, start_n, key_rows, limit,
            VALUE_DIM, SLICE_D,
        )  # fmt: skip
        product = product - delta[:, None]
        plain, steered, weights = _weights(plain_2, strength * bias * LOG2_E, lse_2, norm_2, eps, visible, HAS_EPS)
        strength_gradient += tl.sum(weights * product * bias, 1)
        score_gradient = steered * product
        if HAS_EPS:
            score_gradient -= plain * residual[:, None]
        query_gradient = dot(score_gradient.to(key.dtype), key, query_gradient)

    tl.store(
        query_gradient_ptr + row[:, None] * HEAD_DIM + columns[None, :],
        (query_gradient * scale).to(query_gradient_ptr.dtype.element_ty),
        mask=in_range[:, None] & (columns < HEAD_DIM)[None, :],
    )
    tl.store(strength_gradient_ptr + row, strength_gradient, mask=in_range)
    if HAS_EPS:
        tl.store(saved.residual + row, residual, mask=in_range)


@triton.jit(do_not_specialize=SIZES)
def key_gradient_kernel(
    operands,
    saved,
    key_gradient_ptr,
    value_gradient_ptr,
    bias_gradient_ptr,
    scale,
    eps,
    query_heads,
    group_size,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    PER_QUERY: tl.constexpr,
    HAS_EPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    SLICE_D: tl.constexpr,
):
    """dk [B, Hkv, Lk, HEAD_DIM], dv [B, Hkv, Lk, VALUE_DIM] and db of each query head, float32 [B, Hq, Lk].

    One block of keys of one KV head; the query heads of its group are taken one after the other.
    """
    blocks = tl.cdiv(key_length, BLOCK_N)
    start_n = (tl.program_id(0) % blocks) * BLOCK_N
    batch_head = tl.program_id(0) // blocks
    kv_heads = query_heads // group_size
    batch = tl.cast(batch_head // kv_heads, tl.int64)
    kv_head = tl.cast(batch_head % kv_heads, tl.int64)

    query_rows = tl.arange(0, BLOCK_M)
    key_rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    value_columns = tl.arange(0, BLOCK_DV)
    limit = tl.load(operands.lengths_ptr + batch) if operands.lengths_ptr is not None else key_length
    first_query = 0
    if CAUSAL:
        # The first query that sees the block's first key.
        first_query = tl.maximum(start_n - (key_length - query_length), 0) // BLOCK_M * BLOCK_M

    key_ptr = start_of(operands.key, batch, kv_head)
    value_ptr = start_of(operands.value, batch, kv_head)
    key = 0.0
    value = 0.0
    if SLICE_D is None:
        key = load_tile(key_ptr, operands.key.strides, start_n, key_rows, limit, columns, HEAD_DIM, True)
        value = load_tile(value_ptr, operands.value.strides, start_n, key_rows, limit, value_columns, VALUE_DIM, True)
    key_gradient = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    value_gradient = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for member in tl.range(0, group_size, num_stages=1):
        head = kv_head * group_size + member
        query_base = start_of(operands.query, batch, head)
        strength_base = start_of(operands.strength, batch, head)
        first_row = (batch * query_heads + head) * query_length
        bias = load_row(
            start_of(operands.bias, batch, head), start_n, operands.bias.strides.figure, key_rows, limit, True
        )[None, :]
        bias_gradient = tl.zeros([BLOCK_N], tl.float32)
        # A block of padding alone takes no query.
        last_query = tl.where(start_n < limit, query_length, 0)
        for start_m in tl.range(first_query, last_query, BLOCK_M):
            last_key = start_m + query_rows + (key_length - query_length)
            visible = visible_keys(start_n + key_rows, limit, last_key, CAUSAL)
            is_query = start_m + query_rows < query_length
            visible = visible & is_query[:, None]
            query = load_tile(
                query_base, operands.query.strides, start_m, query_rows, query_length, columns, HEAD_DIM, True
            )
            gradient = load_tile(
                saved.gradient + first_row * VALUE_DIM, RowStrides(0, 0, VALUE_DIM, 1), start_m, query_rows,
                query_length, value_columns, VALUE_DIM, True,
            )  # fmt: skip
            lse_2 = load_row(saved.lse + first_row, start_m, 1, query_rows, query_length, True) * LOG2_E
            delta = load_row(saved.delta + first_row, start_m, 1, query_rows, query_length, True)
            norm_2 = lse_2
            if HAS_EPS:
                norm_2 = load_row(saved.norm + first_row, start_m, 1, query_rows, query_length, True) * LOG2_E
            if PER_QUERY:
                strength = load_row(
                    strength_base, start_m, operands.strength.strides.figure, query_rows, query_length, True
                )[:, None]  # fmt: skip
            else:
                strength = tl.load(strength_base)

            query_left = query
            gradient_left = gradient
            if SLICE_D is not None:
                query_left = query_base + tl.cast(start_m + query_rows, tl.int64) * operands.query.strides.row
                gradient_left = saved.gradient + (first_row + start_m + query_rows) * VALUE_DIM
            plain_2 = (scale * LOG2_E) * dot_rows(
                query_left, key, operands.query.strides.column, is_query, key_ptr, operands.key.strides, start_n,
                key_rows, limit, HEAD_DIM, SLICE_D,
            )  # fmt: skip
            plain, steered, weights = _weights(plain_2, strength * bias * LOG2_E, lse_2, norm_2, eps, visible, HAS_EPS)
            value_gradient = dot(tl.trans(weights.to(gradient.dtype)), gradient, value_gradient)
            product = dot_rows(
                gradient_left, value, 1, is_query, value_ptr, operands.value.strides, start_n, key_rows, limit,
                VALUE_DIM, SLICE_D,
            )  # fmt: skip
            product = product - delta[:, None]
            bias_gradient += tl.sum(strength * (weights * product), 0)
            score_gradient = steered * product
            if HAS_EPS:
                residual = load_row(saved.residual + first_row, start_m, 1, query_rows, query_length, True)
                score_gradient -= plain * residual[:, None]
            key_gradient = dot(tl.trans(score_gradient.to(query.dtype)), query, key_gradient)
        tl.store(
            bias_gradient_ptr + (batch * query_heads + head) * key_length + start_n + key_rows,
            bias_gradient,
            mask=start_n + key_rows < key_length,
        )

    in_range = start_n + key_rows < key_length
    row = tl.cast(batch_head, tl.int64) * key_length + start_n + key_rows
    tl.store(
        key_gradient_ptr + row[:, None] * HEAD_DIM + columns[None, :],
        (key_gradient * scale).to(key_gradient_ptr.dtype.element_ty),
        mask=in_range[:, None] & (columns < HEAD_DIM)[None, :],
    )
    tl.store(
        value_gradient_ptr + row[:, None] * VALUE_DIM + value_columns[None, :],
        value_gradient.to(value_gradient_ptr.dtype.element_ty),
        mask=in_range[:, None] & (value_columns < VALUE_DIM)[None, :],
    )

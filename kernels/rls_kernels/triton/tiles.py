"""What every kernel does alike: where a program works, how it loads a tile, which keys it may see."""

from __future__ import annotations

import triton
import triton.language as tl

from rls_kernels.triton.operands import Starts

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Triton's interpreter holds bfloat16 as 16-bit integers, and its dot multiplies those: it is handed float32 instead.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
# Whether inline assembly can be run: a sanitizer that models none of it sets this to False.
HAS_ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def dot(left, right, first):
    """``first + left @ right`` on the matrix unit, accumulated in float32."""
    if INTERPRETED:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), first)
    return tl.dot(left, right, first, input_precision="ieee")


@triton.jit
def program_again():
    """``tl.program_id(0)``, read again: what follows from it is worked out anew, and takes no register until then."""
    if HAS_ASSEMBLY:
        return tl.inline_asm_elementwise("mov.u32 $0, %ctaid.x;", "=r", [], dtype=tl.int32, is_pure=False, pack=1)
    return tl.program_id(0)


@triton.jit
def query_block(program, blocks, CAUSAL: tl.constexpr):
    """Which of ``blocks`` blocks of queries a program does, and of which (batch, head).

    Under a causal mask blocks with the most keys start first, so that the last to finish are short.
    """
    block = program % blocks
    if CAUSAL:
        block = blocks - 1 - block
    return block, program // blocks


@triton.jit
def start_of(operand, batch, head):
    """Where one ``batch`` and ``head`` of rows or figures start; both are int64."""
    return operand.ptr + (batch * operand.strides.batch + head * operand.strides.head)


@triton.jit
def starts_of(operands, batch, head, kv_head):
    """Where the operands of query head ``head`` start, and of its KV head; all int64."""
    return Starts(
        start_of(operands.query, batch, head),
        start_of(operands.key, batch, kv_head),
        start_of(operands.value, batch, kv_head),
        start_of(operands.bias, batch, head),
        start_of(operands.strength, batch, head),
    )


@triton.jit
def load_tile(ptr, strides, start, rows, limit, columns, WIDTH: tl.constexpr, MASKED: tl.constexpr):
    """Rows ``start + rows`` of a [limit, WIDTH] matrix; columns past WIDTH read 0, rows past ``limit`` too if MASKED.

    The offset of ``start`` is 64 bits wide, those inside the tile 32.
    """
    # The block's own offset is one scalar, so that a thread adds only what differs between threads.
    pointers = (ptr + tl.cast(start, tl.int64) * strides.row) + (
        rows[:, None] * strides.row + columns[None, :] * strides.column
    )
    # Columns are as many as WIDTH, or the next power of two, or some of them.
    if MASKED and WIDTH // columns.shape[0] * columns.shape[0] != WIDTH:
        return tl.load(pointers, mask=(start + rows < limit)[:, None] & (columns < WIDTH)[None, :], other=0.0)
    if MASKED:
        return tl.load(pointers, mask=(start + rows < limit)[:, None], other=0.0)
    if WIDTH // columns.shape[0] * columns.shape[0] != WIDTH:
        return tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def load_keys(
    descriptor, batch, head, ptr, strides, start, rows, limit, columns, WIDTH: tl.constexpr, MASKED: tl.constexpr
):
    """`load_tile` of keys or values, by the ``descriptor`` of all [B, Hkv, Lk, WIDTH] of them where there is one.

    ``ptr`` is where those of ``batch`` and ``head`` start. A masked block is loaded by pointers: what lies past a
    padded row's ``limit`` may be anything, which a descriptor would read.
    """
    if descriptor is not None and not MASKED:
        block = descriptor.load([tl.cast(batch, tl.int32), tl.cast(head, tl.int32), start, 0])
        return tl.reshape(block, [rows.shape[0], columns.shape[0]])
    return load_tile(ptr, strides, start, rows, limit, columns, WIDTH, MASKED)


@triton.jit
def dot_rows(
    left,
    right,
    left_stride,
    left_mask,
    right_ptr,
    right_strides,
    start,
    rows,
    limit,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
):
    """``left @ rightᵀ``, float32 [M, N], of two tiles of rows: all WIDTH columns at once where SLICE is None.

    Else ``left`` [M] is where its rows start, read where ``left_mask``, ``right`` is what `load_tile` loads (masked) by
    the arguments behind it, and both come SLICE columns at a time. Full float32 runs on the ordinary pipes, where a
    thread holds its rows of both tiles: as wide as a head they would spill.
    """
    product = tl.zeros([left.shape[0], rows.shape[0]], tl.float32)
    if SLICE is None:
        product = dot(left, right.T, product)
    else:
        for first in tl.range(0, WIDTH, SLICE):
            columns = first + tl.arange(0, SLICE)
            mask = left_mask[:, None]
            if WIDTH // columns.shape[0] * columns.shape[0] != WIDTH:
                mask = mask & (columns < WIDTH)[None, :]
            some = tl.load(left[:, None] + columns[None, :] * left_stride, mask=mask, other=0.0)
            others = load_tile(right_ptr, right_strides, start, rows, limit, columns, WIDTH, True)
            product = dot(some, others.T, product)
    return product


@triton.jit
def load_row(ptr, start, stride, rows, limit, MASKED: tl.constexpr):
    """Elements ``start + rows`` of a vector; those at and past ``limit`` read 0 if MASKED."""
    pointers = (ptr + tl.cast(start, tl.int64) * stride) + rows * stride
    if MASKED:
        return tl.load(pointers, mask=start + rows < limit, other=0.0)
    return tl.load(pointers)


@triton.jit
def load_bias(ptr, start, stride, keys, limit, MASKED: tl.constexpr):
    """`load_row` of biases. Where they lie together, one 32-bit offset leaves registers to the forward kernels.

    (The backward ones take fewer with `load_row`.)
    """
    # Triton makes a constant of a stride of 1 alone.
    if isinstance(stride, int):
        pointers = ptr + (start + keys)
        if MASKED:
            return tl.load(pointers, mask=start + keys < limit, other=0.0)
        return tl.load(pointers)
    return load_row(ptr, start, stride, keys, limit, MASKED)


@triton.jit
def key_range(
    start_m, query_length, key_length, limit, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Where the keys of one query block end, and how far whole key blocks are visible to each of its queries.

    Keys [0, full) need no mask, keys [full, end) need one, the others are never read. ``limit`` is the number of keys
    that are not padding. Causal is bottom-right aligned: query i sees key j where
    ``j <= i + key_length - query_length``.
    """
    full = limit
    end = limit
    if CAUSAL:
        diagonal = key_length - query_length
        full = tl.maximum(tl.minimum(limit, start_m + diagonal + 1), 0)
        end = tl.maximum(tl.minimum(limit, tl.minimum(start_m + BLOCK_M, query_length) + diagonal), 0)
    return full // BLOCK_N * BLOCK_N, end


@triton.jit
def visible_keys(keys, limit, last_key, CAUSAL: tl.constexpr):
    """Which ``keys`` [N] each query may see, bool [1 or M, N]; ``last_key`` [M] is its last under a causal mask."""
    visible = (keys < limit)[None, :]
    if CAUSAL:
        visible = visible & (keys[None, :] <= last_key[:, None])
    return visible


@triton.jit
def sum_rows(tile, PARTIALS: tl.constexpr):
    """Sum [M, N] to [M, PARTIALS], each over every PARTIALS-th column.

    With as many partial sums as the matrix unit's layout spreads over threads, no thread asks another in the loop.
    """
    return tl.sum(tl.reshape(tile, [tile.shape[0], tile.shape[1] // PARTIALS, PARTIALS]), 1)


@triton.jit
def key_row(values):
    """One value a key as [1, N], held where it was computed until the score tile takes it.

    The maximum over an axis of one element changes no value: it keeps the compiler from moving what came before it past
    the conversion to the score tile's layout, where it would be done once a score and not once a key.
    """
    return tl.max(tl.reshape(values, [values.shape[0], 1]), 1)[None, :]


@triton.jit
def load_first(ptr, start, stride, factor, limit, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr):
    """``factor`` times elements [start, start + BLOCK_N) of a vector, in every row of [BLOCK_M, BLOCK_N].

    As a score accumulator's first values, these cost no move. The matrix unit (mma.sync, wgmma) takes of a thread four
    registers in a row: two keys, for a query and for the one eight rows below. So each element is loaded twice, and the
    two lie in shared memory in that order: one load of 16 bytes brings all four registers. The order of dimensions
    below is what Triton 3.7 lays them out by.
    """
    # Bits of ``index`` from the lowest: the key's lowest, which of the two rows, the key's other ones.
    index = tl.arange(0, 2 * BLOCK_N)
    values = factor * load_bias(ptr, start, stride, index // 4 * 2 + index % 2, limit, MASKED)
    # No more than the fence that `key_row` explains.
    values = tl.max(tl.reshape(values, [2 * BLOCK_N, 1]), 1)
    values = tl.permute(tl.reshape(values, [BLOCK_N // 2, 2, 2]), (2, 1, 0))
    tile = tl.broadcast_to(tl.reshape(values, [2, 2, BLOCK_N // 2, 1, 1]), [2, 2, BLOCK_N // 2, BLOCK_M // 16, 8])
    return tl.reshape(tl.permute(tile, (3, 1, 4, 2, 0)), [BLOCK_M, BLOCK_N])


@triton.jit
def lowest_score(scale_2):
    """A row's running maximum before it saw a key: about the least float32 whose product with ``scale_2`` is finite."""
    return -3e38 / tl.maximum(scale_2, 1.0)


@triton.jit
def finite(shift):
    """A running maximum that is safe to subtract: rows that saw no key yet hold -inf, and take 0."""
    return tl.where(shift == float("-inf"), 0.0, shift)


@triton.jit
def store_figures(stats_ptr, row, rows_total, in_range, seen, lse, lse_steered, entropy, entropy_steered, divergence):
    """Store the statistics, each [M] and in base 2, in the order of their names; rows that saw no key get 0."""
    # Rounding may leave an entropy or a divergence of nothing just below it.
    zero = 0.0
    entropy = tl.where(entropy < zero, zero, entropy)
    entropy_steered = tl.where(entropy_steered < zero, zero, entropy_steered)
    divergence = tl.where(divergence < zero, zero, divergence)
    tl.store(stats_ptr + row, tl.where(seen, lse * LN_2, zero), mask=in_range)
    tl.store(stats_ptr + rows_total + row, tl.where(seen, lse_steered * LN_2, zero), mask=in_range)
    tl.store(stats_ptr + 2 * rows_total + row, tl.where(seen, entropy * LN_2, zero), mask=in_range)
    tl.store(stats_ptr + 3 * rows_total + row, tl.where(seen, entropy_steered * LN_2, zero), mask=in_range)
    tl.store(stats_ptr + 4 * rows_total + row, tl.where(seen, divergence * LN_2, zero), mask=in_range)


@triton.jit
def store_stats(
    stats_ptr, row, rows_total, in_range, seen, plain_shift, plain_sum, plain_moment, bias_sum, shift, total, moment
):
    """Store the statistics from sums over a row, all in base 2; each [M].

    With ``z`` the plain logits less ``plain_shift``: ``plain_sum = Σ 2^z``, ``plain_moment = Σ 2^z z`` and
    ``bias_sum = Σ 2^z λb``; ``total`` and ``moment`` are those of the steered logits less ``shift``.
    """
    plain_sum = tl.where(seen, plain_sum, 1.0)
    total = tl.where(seen, total, 1.0)
    lse = plain_shift + tl.log2(plain_sum)
    lse_steered = shift + tl.log2(total)
    store_figures(
        stats_ptr, row, rows_total, in_range, seen, lse, lse_steered,
        tl.log2(plain_sum) - plain_moment / plain_sum, tl.log2(total) - moment / total,
        lse_steered - lse - bias_sum / plain_sum,
    )  # fmt: skip

"""A small flash kernel of the inspector's own, so that its tests don't move when the shipped kernels do."""

import triton
import triton.language as tl


@triton.jit
def plain_flash(
    query_ptr,
    key_ptr,
    value_ptr,
    bias_ptr,
    out_ptr,
    strength,
    scale,
    length,
    STEERED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One head of dense attention over contiguous [length, HEAD_DIM] tensors; no masking."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, HEAD_DIM)
    query = tl.load(query_ptr + rows[:, None] * HEAD_DIM + dims[None, :])
    running_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    accumulator = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    scale_log2 = scale * 1.4426950408889634
    for start in range(0, length, BLOCK_N):
        key = tl.load(key_ptr + (start + columns)[None, :] * HEAD_DIM + dims[:, None])
        if STEERED:
            bias = tl.load(bias_ptr + start + columns) * (strength / scale)
            scores = tl.dot(query, key, tl.broadcast_to(bias[None, :], [BLOCK_M, BLOCK_N]))
        else:
            scores = tl.dot(query, key)
        new_max = tl.maximum(running_max, tl.max(scores, 1) * scale_log2)
        weights = tl.math.exp2(scores * scale_log2 - new_max[:, None])
        shrink = tl.math.exp2(running_max - new_max)
        row_sum = row_sum * shrink + tl.sum(weights, 1)
        value = tl.load(value_ptr + (start + columns)[:, None] * HEAD_DIM + dims[None, :])
        accumulator = tl.dot(weights.to(value.dtype), value, accumulator * shrink[:, None])
        running_max = new_max
    accumulator = accumulator / row_sum[:, None]
    tl.store(out_ptr + rows[:, None] * HEAD_DIM + dims[None, :], accumulator.to(out_ptr.dtype.element_ty))

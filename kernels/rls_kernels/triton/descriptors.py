"""Tensor descriptors of keys and values, by which Hopper and later copy whole tiles to shared memory (TMA)."""

from __future__ import annotations

import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# What the CUDA driver asks of a tensor map (cuTensorMapEncodeTiled): its address and all strides but the last.
_ALIGNMENT_BYTES = 16
_MOST_STRIDE_BYTES = 2**40


def describe(tensor: Tensor, block_rows: int, block_width: int) -> TensorDescriptor | None:
    """Of ``tensor`` [B, H, L, D], read in tiles of [1, 1, block_rows, block_width]; what lies past its ends reads 0.

    None where the hardware can't describe it: elements of a row apart, rows, heads or the start off a multiple of 16
    bytes, an axis expanded without memory of its own, or nothing to read.
    """
    shape = list(tensor.shape)
    if min(shape) == 0 or tensor.data_ptr() % _ALIGNMENT_BYTES or (tensor.stride(3) != 1 and shape[3] > 1):
        return None
    strides = [1]
    for axis in (2, 1, 0):
        stride = tensor.stride(axis)
        if shape[axis] == 1:
            # Never stepped along, so torch lets it be anything; the driver doesn't.
            stride = triton.cdiv(strides[0] * shape[axis + 1], _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        stride_bytes = stride * tensor.element_size()
        if not 0 < stride_bytes < _MOST_STRIDE_BYTES or stride_bytes % _ALIGNMENT_BYTES:
            return None
        strides.insert(0, stride)
    return TensorDescriptor(tensor, shape, strides, [1, 1, block_rows, block_width])

"""What the hardware can describe: tensors whose tiles Hopper and later copy whole to shared memory (TMA)."""

from __future__ import annotations

from collections.abc import Sequence

import triton

# What the CUDA driver asks of a tensor map (cuTensorMapEncodeTiled): its address and all strides but the last.
_ALIGNMENT_BYTES = 16
_MOST_STRIDE_BYTES = 2**40


def describable(shape: Sequence[int], strides: Sequence[int], element_bytes: int) -> list[int] | None:
    """The strides by which a [B, H, L, D] tensor that starts at a multiple of 16 bytes is described.

    None where the hardware can't: elements of a row apart, rows or heads off a multiple of 16 bytes, an axis expanded
    without memory of its own, or nothing to read.
    """
    if min(shape) == 0 or (strides[3] != 1 and shape[3] > 1):
        return None
    found = [1]
    for axis in (2, 1, 0):
        stride = strides[axis]
        if shape[axis] == 1:
            # Never stepped along, so torch lets it be anything; the driver doesn't.
            stride = triton.cdiv(found[0] * shape[axis + 1], _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        stride_bytes = stride * element_bytes
        if not 0 < stride_bytes < _MOST_STRIDE_BYTES or stride_bytes % _ALIGNMENT_BYTES:
            return None
        found.insert(0, stride)
    return found

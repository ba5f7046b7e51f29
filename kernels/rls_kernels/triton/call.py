"""What a call asks of the kernels: its tensors, and apart from them all that a launch can be prepared from.

query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] of one dtype and any strides; bias float32
[B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths int32 [B] or None. Nothing is checked
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rls_kernels.triton import configurations
from rls_kernels.triton.operands import Figures, FigureStrides, Operands, Rows, RowStrides, filled

# The interpreter has no multiprocessors to fill; a few let small problems split.
_INTERPRETED_MULTIPROCESSORS = 4
# What Triton's kernels are compiled for, where the pointers allow it.
_ALIGNMENT_BYTES = 16


class Tensors(NamedTuple):
    """The tensors of a call."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    strength: Tensor
    key_lengths: Tensor | None = None

    @property
    def are_aligned(self) -> bool:
        """Whether each starts at a multiple of 16 bytes."""
        query, key, value, bias, strength, lengths = self
        starts = query.data_ptr() | key.data_ptr() | value.data_ptr() | bias.data_ptr() | strength.data_ptr()
        if lengths is not None:
            starts |= lengths.data_ptr()
        return starts % _ALIGNMENT_BYTES == 0


class Layout(NamedTuple):
    """Shape and strides of a tensor, the latter as kernels take them."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call without its tensors: equal ones are launched alike. ``scale`` is positive."""

    query: Layout
    key: Layout
    value: Layout
    bias: Layout
    strength: Layout
    has_lengths: bool
    dtype: torch.dtype
    device: torch.device
    scale: float
    eps: float = 0.0
    is_causal: bool = False

    @classmethod
    def of(
        cls,
        tensors: Tensors,
        scale: float,
        eps: float = 0.0,
        is_causal: bool = False,
    ) -> Call:
        """The call of these tensors and options."""
        query, key, value, bias, strength, lengths = tensors
        return cls(
            Layout(query.shape, query.stride()),
            Layout(key.shape, key.stride()),
            Layout(value.shape, value.stride()),
            Layout(bias.shape, bias.stride()),
            Layout(strength.shape, strength.stride()),
            lengths is not None,
            query.dtype,
            query.device,
            scale,
            eps,
            is_causal,
        )

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Query heads, heads of a group, Lq and Lk."""
        query_heads, kv_heads = self.query.shape[1], self.key.shape[1]
        return query_heads, query_heads // kv_heads, self.query.shape[2], self.key.shape[2]

    @property
    def rows(self) -> tuple[int, int, int]:
        """B, Hq and Lq."""
        batch, heads, length, _ = self.query.shape
        return batch, heads, length

    @property
    def head_dims(self) -> tuple[int, int]:
        """D and Dv."""
        return self.query.shape[3], self.value.shape[3]

    @property
    def shape_class(self) -> tuple[int, int]:
        """The larger head dim and the bytes of an element, which configurations go by."""
        return max(self.head_dims), self.dtype.itemsize

    @property
    def is_per_query(self) -> bool:
        """Whether λ varies with the query."""
        return self.strength.shape[2] > 1

    def constants(self) -> dict[str, Any]:
        """Compile-time constants that follow from the problem alone."""
        head_dim, value_dim = self.head_dims
        return {
            "HEAD_DIM": head_dim,
            "VALUE_DIM": value_dim,
            "CAUSAL": self.is_causal,
            "BLOCK_D": configurations.block_width(head_dim),
            "BLOCK_DV": configurations.block_width(value_dim),
        }

    def strides(self) -> tuple[RowStrides, RowStrides, RowStrides, FigureStrides, FigureStrides]:
        """Of every operand; 0 for an axis of size 1 of bias and strength, which broadcast without being expanded."""
        bias, strength = (
            FigureStrides(*(0 if size == 1 else step for size, step in zip(*layout, strict=True)))
            for layout in (self.bias, self.strength)
        )
        rows = (RowStrides(*layout.strides) for layout in (self.query, self.key, self.value))
        return *rows, bias, strength  # type: ignore[return-value]


def operands(tensors: Tensors, strides: tuple[Any, ...]) -> Operands:
    """``tensors`` with the ``strides`` of their call, as kernels take them."""
    query, key, value, bias, strength, lengths = tensors
    of_query, of_key, of_value, of_bias, of_strength = strides
    return filled(
        Operands,
        (
            filled(Rows, (query, of_query)),
            filled(Rows, (key, of_key)),
            filled(Rows, (value, of_value)),
            filled(Figures, (bias, of_bias)),
            filled(Figures, (strength, of_strength)),
            lengths,
        ),
    )


def architecture(device: torch.device) -> int:
    """``80`` for sm_80; the interpreter takes sm_80's configurations."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


@cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of ``device``."""
    if device.type != "cuda":
        return _INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count

"""Launches the kernels: picks one, its configuration and its grid, and allocates what it writes.

Tensors everywhere: query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] of one dtype and any strides; bias
float32 [B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths int32 [B] or None. ``scale`` is
positive. Nothing is checked here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from rls_kernels.triton import configurations, tuning
from rls_kernels.triton.backward import key_gradient_kernel, query_gradient_kernel
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.decode import ROW_FIGURES, decode_kernel, reduce_kernel
from rls_kernels.triton.floored import floored_kernel
from rls_kernels.triton.prefill import prefill_kernel

MOST_DECODE_QUERIES = 16
_MOST_SPLITS = 64
# The interpreter has no multiprocessors to fill; a few let small problems split.
_INTERPRETED_MULTIPROCESSORS = 4


class Forward(NamedTuple):
    """What the forward kernels write.

    ``out`` [B, Hq, Lq, Dv] in query's dtype; float32: ``lse`` [B, Hq, Lq], the log-sum-exp of the scores (steered where
    eps is 0, else plain), ``norm`` [B, Hq, Lq], the log of the floored normaliser (empty where eps is 0), and ``stats``
    [5, B, Hq, Lq]: lse, lse_steered, entropy, entropy_steered, KL (empty unless asked for).
    """

    out: Tensor
    lse: Tensor
    norm: Tensor
    stats: Tensor


@dataclass(frozen=True)
class Call:
    """The arguments that every kernel takes."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    strength: Tensor
    key_lengths: Tensor | None
    scale: float
    eps: float
    is_causal: bool
    allow_tf32: bool = False

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
    def shape_class(self) -> tuple[int, int]:
        """The larger head dim and the bytes of an element, which configurations go by."""
        return max(self.query.shape[3], self.value.shape[3]), self.query.element_size()

    def tensors(self) -> tuple[Tensor, ...]:
        # Without lengths the pointer is never read.
        lengths = self.bias if self.key_lengths is None else self.key_lengths
        return self.query, self.key, self.value, self.bias, self.strength, lengths

    def strides(self) -> tuple[int, ...]:
        """Of every input; 0 for an axis of size 1, so that it broadcasts without being expanded."""
        return (
            *self.query.stride(),
            *self.key.stride(),
            *self.value.stride(),
            *(0 if size == 1 else stride for size, stride in zip(self.bias.shape, self.bias.stride(), strict=True)),
            *(
                0 if size == 1 else stride
                for size, stride in zip(self.strength.shape, self.strength.stride(), strict=True)
            ),
        )

    def constants(self) -> dict[str, Any]:
        """Compile-time constants that follow from the problem alone."""
        head_dim, value_dim = self.query.shape[3], self.value.shape[3]
        return {
            "HEAD_DIM": head_dim,
            "VALUE_DIM": value_dim,
            "CAUSAL": self.is_causal,
            "HAS_LENGTHS": self.key_lengths is not None,
            "PRECISION": "tf32" if self.allow_tf32 else "ieee",
            "BLOCK_D": configurations.block_width(head_dim),
            "BLOCK_DV": configurations.block_width(value_dim),
        }


def forward(call: Call, return_stats: bool, configuration: Configuration | None = None) -> Forward:
    """The kernel that the shape asks for: decode for a handful of queries over a longer cache, else prefill."""
    if configuration is None and is_decode(call):
        return decode(call, return_stats)
    return prefill(call, return_stats, configuration)


def is_decode(call: Call) -> bool:
    """Whether a handful of queries meet a longer cache."""
    query_length, key_length = call.sizes[2:]
    return query_length <= MOST_DECODE_QUERIES < key_length


def prefill(call: Call, return_stats: bool, configuration: Configuration | None = None) -> Forward:
    """One launch of the prefill kernel, or with eps of the floored one."""
    chosen = configuration or _choice(call, return_stats)
    result = _allocate(call, return_stats)
    batch, heads, query_length = call.rows
    # The floored kernel's last row gathers its eps sums.
    queries = chosen.block_m - 1 if call.eps else chosen.block_m
    grid = (triton.cdiv(query_length, queries) * batch * heads,)
    constants = {
        **call.constants(),
        **chosen.constants(),
        "PER_QUERY": call.strength.shape[2] > 1,
        "STATS": return_stats,
        "PARTIALS": chosen.partials,
        "SUM_BY_DOT": chosen.sums_by_dot,
    }
    with _device(call.query):
        if call.eps:
            bits = 15 if call.query.dtype == torch.float16 else 0
            floored_kernel[grid](
                *call.tensors(), *result, *call.strides(), call.scale, call.eps, batch, *call.sizes,
                WEIGHT_BITS=bits, **constants,
            )  # fmt: skip
        else:
            prefill_kernel[grid](
                *call.tensors(), result.out, result.lse, result.stats, *call.strides(), call.scale, batch, *call.sizes,
                STEERED=True, BIAS_FIRST=call.query.dtype != torch.float32, **constants,
            )  # fmt: skip
    return result


def tune(call: Call, return_stats: bool) -> None:
    """Measure the prefill kernel's candidates for ``call``'s shape class, unless that was done before; needs CUDA."""
    tuning.tune(
        torch.cuda.get_device_name(call.query.device),
        _problem(call, return_stats),
        _from_table(call, return_stats),
        lambda configuration: prefill(call, return_stats, configuration),
    )


def _choice(call: Call, return_stats: bool) -> Configuration:
    """What tuning has kept, else the table's."""
    if call.query.device.type == "cuda":
        chosen = tuning.kept(torch.cuda.get_device_name(call.query.device), _problem(call, return_stats))
        if chosen is not None:
            return chosen
    return _from_table(call, return_stats)


def _from_table(call: Call, return_stats: bool) -> Configuration:
    arch = architecture(call.query.device)
    return configurations.prefill(arch, *call.shape_class, exact_sums=return_stats, has_eps=call.eps > 0)


def _problem(call: Call, return_stats: bool) -> str:
    batch, heads, _ = call.rows
    options = (call.is_causal, call.eps > 0, return_stats, call.strength.shape[2] > 1, call.allow_tf32)
    head_dims = (call.query.shape[3], call.value.shape[3])
    return tuning.shape_class(call.query.dtype, head_dims, call.sizes[2:], batch * heads, options)


def decode(call: Call, return_stats: bool, configuration: Configuration | None = None) -> Forward:
    """The keys split over programs, then one reduction; as many splits as fill the multiprocessors twice."""
    chosen = configuration or configurations.decode(architecture(call.query.device), *call.shape_class)
    result = _allocate(call, return_stats)
    batch, heads, query_length = call.rows
    _, group_size, _, key_length = call.sizes
    tile_rows = min(chosen.block_m, max(16, triton.next_power_of_2(group_size * query_length)))
    tiles = triton.cdiv(group_size * query_length, tile_rows)
    splits, split_length = split_keys(
        key_length, chosen.block_n, batch * heads // group_size * tiles, multiprocessors(call.query.device)
    )
    rows_total, value_dim = batch * heads * query_length, call.value.shape[3]
    workspace: dict[str, Any] = {"dtype": torch.float32, "device": call.query.device}
    partial_out = torch.empty((splits, rows_total, value_dim), **workspace)
    partial_weighted = torch.empty((splits, rows_total, value_dim) if call.eps else 0, **workspace)
    partial_rows = torch.empty((splits, ROW_FIGURES.value, rows_total), **workspace)
    options = {"HAS_EPS": call.eps > 0, "STATS": return_stats}
    with _device(call.query):
        decode_kernel[(batch * heads // group_size, splits, tiles)](
            *call.tensors(), partial_out, partial_weighted, partial_rows, *call.strides(), call.scale, batch,
            *call.sizes, split_length, STEERED=True, BIAS_PER_HEAD=call.bias.shape[1] > 1,
            **{**call.constants(), **chosen.constants(), **options, "BLOCK_M": tile_rows},
        )  # fmt: skip
        reduce_kernel[(rows_total,)](
            partial_out, partial_weighted, partial_rows, *result, call.eps, rows_total, splits, VALUE_DIM=value_dim,
            BLOCK_S=triton.next_power_of_2(splits), BLOCK_DV=configurations.block_width(value_dim), **options,
        )  # fmt: skip
    return result


def split_keys(key_length: int, block_n: int, programs: int, multiprocessors: int) -> tuple[int, int]:
    """Splits of the keys and keys a split (whole blocks): ``programs`` × splits fill each multiprocessor twice."""
    blocks = triton.cdiv(key_length, block_n)
    wanted = max(1, min(blocks, _MOST_SPLITS, triton.cdiv(2 * multiprocessors, programs)))
    split_length = triton.cdiv(blocks, wanted) * block_n
    return triton.cdiv(key_length, split_length), split_length


class Gradients(NamedTuple):
    """query, key and value in their dtypes, bias and strength float32, each in its input's shape."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    strength: Tensor


def backward(call: Call, forward: Forward, gradient: Tensor, configuration: Configuration | None = None) -> Gradients:
    """Gradients for ``gradient`` = dout [B, Hq, Lq, Dv]; the same every time (no atomics)."""
    by_query, by_key = configurations.backward(architecture(call.query.device), *call.shape_class)
    if configuration is not None:
        by_query = by_key = configuration
    batch, heads, query_length = call.rows
    kv_heads, key_length = call.key.shape[1:3]
    gradient = gradient.contiguous()
    delta = (forward.out.float() * gradient.float()).sum(-1)
    residual = torch.empty_like(forward.norm)
    query_gradient = torch.empty(call.query.shape, dtype=call.query.dtype, device=call.query.device)
    key_gradient = torch.empty(call.key.shape, dtype=call.key.dtype, device=call.key.device)
    value_gradient = torch.empty(call.value.shape, dtype=call.value.dtype, device=call.value.device)
    bias_gradient = torch.empty((batch, heads, key_length), dtype=torch.float32, device=call.query.device)
    strength_gradient = torch.empty_like(forward.lse)
    constants = {**call.constants(), "PER_QUERY": call.strength.shape[2] > 1, "HAS_EPS": call.eps > 0}
    saved = (*call.tensors(), forward.lse, forward.norm, delta, residual, gradient)
    numbers = (*call.strides(), call.scale, call.eps, *call.sizes)
    with _device(call.query):
        query_gradient_kernel[(triton.cdiv(query_length, by_query.block_m) * batch * heads,)](
            *saved, query_gradient, strength_gradient, *numbers, **constants, **by_query.constants()
        )
        key_gradient_kernel[(triton.cdiv(key_length, by_key.block_n) * batch * kv_heads,)](
            *saved, key_gradient, value_gradient, bias_gradient, *numbers, **constants, **by_key.constants()
        )
    return Gradients(
        query_gradient,
        key_gradient,
        value_gradient,
        bias_gradient.sum_to_size(call.bias.shape),
        strength_gradient.sum_to_size(call.strength.shape),
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


def _allocate(call: Call, return_stats: bool) -> Forward:
    rows, device = call.rows, call.query.device
    return Forward(
        out=call.query.new_empty(*rows, call.value.shape[3]),
        lse=torch.empty(rows, dtype=torch.float32, device=device),
        norm=torch.empty(rows if call.eps else 0, dtype=torch.float32, device=device),
        stats=torch.empty((5, *rows) if return_stats else 0, dtype=torch.float32, device=device),
    )


def _device(tensor: Tensor) -> AbstractContextManager[Any]:
    # Triton launches on the current device, whichever the tensors lie on.
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()

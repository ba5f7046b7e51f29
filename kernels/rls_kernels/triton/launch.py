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
from triton.tools.tensor_descriptor import TensorDescriptor

from rls_kernels.triton import configurations, tuning
from rls_kernels.triton.backward import key_gradient_kernel, query_gradient_kernel
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.decode import ROW_FIGURES, decode_kernel, reduce_kernel
from rls_kernels.triton.descriptors import describe
from rls_kernels.triton.floored import floored_kernel
from rls_kernels.triton.narrow import columns_kernel, narrow_kernel
from rls_kernels.triton.prefill import prefill_kernel

MOST_DECODE_QUERIES = 16
_MOST_SPLITS = 64
# Keys from which on statistics may be of rounded weights.
NARROW_STATS_KEYS = 256
# Keys whose columns one program works out.
COLUMN_KEYS = 1024
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
    """One launch of the prefill kernel; with eps or statistics of the narrow one and of its wide substitute.

    Which of the two does a head depends on how far its λb spans. Only the GPU knows that, so both are launched, and
    each ends at once where the other is meant. λ by query, float32 and statistics of few keys have no narrow kernel.
    """
    narrow = _narrow_columns(call, return_stats)
    result = _allocate(call, return_stats)
    batch, heads, query_length = call.rows
    numbers = (call.scale, batch, *call.sizes)
    numbers_with_eps = (call.scale, call.eps, batch, *call.sizes)
    options = {**call.constants(), "STATS": return_stats}
    with _device(call.query):
        if narrow is not None:
            chosen = configuration or _choice(call, return_stats)
            # The last row of a block gathers its eps sums.
            queries = chosen.block_m - 1 if call.eps else chosen.block_m
            narrow_kernel[(triton.cdiv(query_length, queries) * batch * heads,)](
                *call.tensors(), *result, narrow.columns, narrow.spans, *_descriptors(call, chosen), *call.strides(),
                *narrow.strides, *numbers_with_eps, HAS_EPS=call.eps > 0, NARROW=narrow.widest,
                COLUMNS=narrow.columns.shape[-1], BIAS_EARLY=chosen.bias_early, ROWS_ANEW=chosen.rows_anew,
                MASKED_N=chosen.masked_n, **options, **chosen.constants(),
            )  # fmt: skip
            chosen = configuration or _from_table(call, return_stats, wide=True)
        else:
            chosen = configuration or _choice(call, return_stats)
        spans, row_strides, widest = (result.lse, (0, 0), None) if narrow is None else narrow[1:]
        queries = chosen.block_m - 1 if call.eps else chosen.block_m
        grid = (triton.cdiv(query_length, queries) * batch * heads,)
        options |= {
            **chosen.constants(),
            "PER_QUERY": call.strength.shape[2] > 1,
            "WIDER_THAN": widest,
            "PARTIALS": chosen.partials,
            "SUM_BY_DOT": chosen.sums_by_dot,
            "ROWS_ANEW": chosen.rows_anew,
            "MASKED_N": chosen.masked_n,
        }
        if call.eps:
            bits = 15 if call.query.dtype == torch.float16 else 0
            floored_kernel[grid](
                *call.tensors(), *result, spans, *call.strides(), *row_strides, *numbers_with_eps, WEIGHT_BITS=bits,
                **options,
            )  # fmt: skip
        else:
            prefill_kernel[grid](
                *call.tensors(), result.out, result.lse, result.stats, spans, *_descriptors(call, chosen),
                *call.strides(), *row_strides, *numbers, STEERED=True,
                BIAS_FIRST=call.query.dtype != torch.float32 and not options["PER_QUERY"],
                BIAS_EARLY=chosen.bias_early, **options,
            )  # fmt: skip
    return result


def _descriptors(call: Call, chosen: Configuration) -> tuple[TensorDescriptor | None, TensorDescriptor | None]:
    """Of keys and values; None where they are loaded by pointers."""
    if not chosen.descriptors:
        return None, None
    key, value = (
        describe(tensor, chosen.block_n, configurations.block_width(tensor.shape[3]))
        for tensor in (call.key, call.value)
    )
    # Both or neither: each pair compiles to a kernel of its own.
    return (None, None) if key is None or value is None else (key, value)


class _Narrow(NamedTuple):
    """What the narrow kernel needs of λb.

    ``columns`` [B or 1, Hq or 1, Lk, columns] in a 16-bit dtype; ``spans`` float32 [B or 1, Hq or 1, 2], the lowest λb
    and its span in base 2; the rows of both from one batch and one head to the next; and the widest span it takes.
    """

    columns: Tensor
    spans: Tensor
    strides: tuple[int, int]
    widest: float


def _has_narrow(call: Call, return_stats: bool) -> bool:
    if call.query.dtype == torch.float32 or call.strength.shape[2] > 1:
        return False
    # Over few keys statistics would show the rounding of each weight, and there is nothing to be gained.
    return call.key.shape[2] >= NARROW_STATS_KEYS if return_stats else call.eps > 0


def _narrow_columns(call: Call, return_stats: bool) -> _Narrow | None:
    """Launch what works out the columns, one row for all that share a bias, a λ and a length; None where not used."""
    if not _has_narrow(call, return_stats):
        return None
    is_float16 = call.query.dtype == torch.float16
    batches = max(call.bias.shape[0], call.strength.shape[0], 1 if call.key_lengths is None else call.rows[0])
    heads = max(call.bias.shape[1], call.strength.shape[1])
    key_length, device = call.sizes[3], call.query.device
    columns = torch.empty(
        (batches, heads, key_length, configurations.columns(architecture(device))),
        dtype=torch.float16 if is_float16 or return_stats else torch.bfloat16,
        device=device,
    )
    spans = torch.empty((batches, heads, 2), dtype=torch.float32, device=device)
    tensors = call.tensors()[3:]
    # Of the bias b, h and n; of λ b and h.
    strides = call.strides()[12:17]
    with _device(call.query):
        columns_kernel[(triton.cdiv(key_length, COLUMN_KEYS) * batches * heads,)](
            *tensors, columns, spans, *strides, heads, key_length, HAS_LENGTHS=call.key_lengths is not None,
            BLOCK_N=COLUMN_KEYS, COLUMNS=columns.shape[-1],
        )  # fmt: skip
    row_strides = (heads if batches > 1 else 0, 1 if heads > 1 else 0)
    return _Narrow(columns, spans, row_strides, configurations.narrowest(is_float16, return_stats))


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


def _from_table(call: Call, return_stats: bool, wide: bool = False) -> Configuration:
    arch = architecture(call.query.device)
    if _has_narrow(call, return_stats) and not wide:
        return configurations.narrow(arch, call.shape_class[0], stats=return_stats)
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
    arch = architecture(call.query.device)
    by_query, by_key = configurations.backward(arch, *call.shape_class, has_eps=call.eps > 0)
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

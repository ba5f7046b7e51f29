"""Which forward kernel does a call, in which configuration, and how it is launched: decided once a layout."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from rls_kernels.triton import configurations, tuning
from rls_kernels.triton.call import Call, Tensors, architecture, multiprocessors, operands
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.decode import ROW_FIGURES, decode_kernel, reduce_kernel
from rls_kernels.triton.descriptors import describable
from rls_kernels.triton.floored import floored_kernel
from rls_kernels.triton.launch import Launch, on
from rls_kernels.triton.narrow import columns_kernel, narrow_kernel
from rls_kernels.triton.operands import Forward, filled
from rls_kernels.triton.prefill import prefill_kernel

MOST_DECODE_QUERIES = 16
_MOST_SPLITS = 64
# Keys from which on statistics may be of rounded weights.
NARROW_STATS_KEYS = 256
# Keys whose columns one program works out.
COLUMN_KEYS = 1024
# Layouts that are remembered; a model has a few, and its decode steps one more a token.
_MOST_PREPARED = 512


def forward(call: Call, tensors: Tensors, return_stats: bool) -> Forward:
    """Run ``call`` on its ``tensors``; a layout that was seen before is launched as it was prepared then."""
    return prepared(call, return_stats)(tensors)


@lru_cache(_MOST_PREPARED)
def prepared(call: Call, return_stats: bool) -> Prefill | Decode:
    """What runs ``call``: decode for a handful of queries over a longer cache, else prefill."""
    return Decode(call, return_stats) if is_decode(call) else Prefill(call, return_stats)


def is_decode(call: Call) -> bool:
    """Whether a handful of queries meet a longer cache."""
    query_length, key_length = call.sizes[2:]
    return query_length <= MOST_DECODE_QUERIES < key_length


class Prefill:
    """One launch of the prefill kernel; with eps or statistics of the narrow one and of its wide substitute.

    Which of the two does a head depends on how far its λb spans. Only the GPU knows that, so both are launched, and
    each ends at once where the other is meant. λ by query, float32 and statistics of few keys have no narrow kernel.

    ``configuration`` replaces that of the kernel that does the work: the narrow one where there is one.
    """

    def __init__(self, call: Call, return_stats: bool, configuration: Configuration | None = None) -> None:
        self.call = call
        self._results = _Results(call, return_stats)
        self._strides = call.strides()
        batch = call.rows[0]
        self._numbers = (call.scale, *((call.eps,) if call.eps else ()), batch, *call.sizes)
        self._columns: _Columns | None = None
        self._narrow: Launch | None = None
        widest = None
        chosen = configuration or choice(call, return_stats)
        if has_narrow(call, return_stats):
            self._columns = _Columns(call, return_stats)
            widest = self._columns.widest
            self._narrow_numbers = (call.scale, call.eps, batch, *call.sizes)
            self._narrow_described = _describables(call, chosen)
            self._narrow = Launch(
                narrow_kernel,
                (_programs(call, chosen),),
                {
                    **call.constants(),
                    **chosen.constants(),
                    "STATS": return_stats,
                    "HAS_EPS": call.eps > 0,
                    "NARROW": widest,
                    "COLUMNS": self._columns.columns,
                    "BIAS_EARLY": chosen.bias_early,
                    "ROWS_ANEW": chosen.rows_anew,
                    "MASKED_N": chosen.masked_n,
                },
            )
            # Tuning is the narrow kernel's: the other one ends at once but where λb spans widely.
            chosen = from_table(call, return_stats, wide=True)
        constants = {
            **call.constants(),
            **chosen.constants(),
            "STATS": return_stats,
            "PER_QUERY": call.is_per_query,
            "WIDER_THAN": widest,
            "PARTIALS": chosen.partials,
            "SUM_BY_DOT": chosen.sums_by_dot,
            "ROWS_ANEW": chosen.rows_anew,
            "MASKED_N": chosen.masked_n,
            "SLICE_D": chosen.slice_d,
        }
        self._described: tuple[_Describable, _Describable] | None = None
        grid = (_programs(call, chosen),)
        if call.eps:
            bits = 15 if call.dtype == torch.float16 else 0
            self._wide = Launch(floored_kernel, grid, {**constants, "WEIGHT_BITS": bits})
        else:
            self._described = _describables(call, chosen)
            bias_first = call.dtype != torch.float32 and not call.is_per_query
            self._wide = Launch(
                prefill_kernel,
                grid,
                {**constants, "STEERED": True, "BIAS_FIRST": bias_first, "BIAS_EARLY": chosen.bias_early},
            )

    def __call__(self, tensors: Tensors) -> Forward:
        """Launch on ``tensors`` of the prepared layout, and return what will have been written."""
        result = self._results()
        given = operands(tensors, self._strides)
        are_aligned = tensors.are_aligned
        with on(self.call.device):
            spans, row_strides = result.lse, (0, 0)
            if self._columns is not None and self._narrow is not None:
                columns, spans = self._columns(are_aligned, given)
                row_strides = self._columns.row_strides
                self._narrow(
                    are_aligned, given, result, columns, spans,
                    *_descriptors(self._narrow_described, tensors, are_aligned), *row_strides, *self._narrow_numbers,
                )  # fmt: skip
            descriptors = () if self.call.eps else _descriptors(self._described, tensors, are_aligned)
            self._wide(are_aligned, given, result, spans, *descriptors, *row_strides, *self._numbers)
        return result


class _Columns:
    """What the narrow kernel needs of λb, one row for all heads that share a bias, a λ and a length.

    Calling it launches what works out ``columns`` [B or 1, Hq or 1, Lk, columns] in a 16-bit dtype and ``spans``
    float32 [B or 1, Hq or 1, 2], the lowest λb and its span in base 2. ``row_strides`` are rows of both from one batch
    and one head to the next; ``widest`` is the widest span that the narrow kernel takes.
    """

    def __init__(self, call: Call, return_stats: bool) -> None:
        is_float16 = call.dtype == torch.float16
        self.widest = configurations.narrowest(is_float16, return_stats)
        self.columns = configurations.columns(architecture(call.device))
        batches = max(call.bias.shape[0], call.strength.shape[0], call.rows[0] if call.has_lengths else 1)
        heads = max(call.bias.shape[1], call.strength.shape[1])
        key_length = call.sizes[3]
        self.row_strides = (heads if batches > 1 else 0, 1 if heads > 1 else 0)
        self._dtype = torch.float16 if is_float16 or return_stats else torch.bfloat16
        self._shape = (batches, heads, key_length, self.columns)
        self._launch = Launch(
            columns_kernel,
            (triton.cdiv(key_length, COLUMN_KEYS) * batches * heads,),
            {"BLOCK_N": COLUMN_KEYS, "COLUMNS": self.columns},
        )

    def __call__(self, are_aligned: bool, given: Any) -> tuple[Tensor, Tensor]:
        device = given.bias.ptr.device
        columns = torch.empty(self._shape, dtype=self._dtype, device=device)
        spans = torch.empty((*self._shape[:2], 2), dtype=torch.float32, device=device)
        self._launch(are_aligned, given, columns, spans, *self._shape[1:3])
        return columns, spans


class Decode:
    """The keys split over programs, then one reduction; as many splits as fill the multiprocessors twice."""

    def __init__(self, call: Call, return_stats: bool, configuration: Configuration | None = None) -> None:
        self.call = call
        self._results = _Results(call, return_stats)
        self._strides = call.strides()
        chosen = configuration or configurations.decode(
            architecture(call.device), *call.shape_class, stats=return_stats, has_eps=call.eps > 0
        )
        batch, heads, query_length = call.rows
        _, group_size, _, key_length = call.sizes
        tile_rows = min(chosen.block_m, max(16, triton.next_power_of_2(group_size * query_length)))
        tiles = triton.cdiv(group_size * query_length, tile_rows)
        kv_programs = batch * heads // group_size
        splits, split_length = split_keys(key_length, chosen.block_n, kv_programs * tiles, multiprocessors(call.device))
        rows_total, value_dim = batch * heads * query_length, call.value.shape[3]
        self._out_shape = (splits, rows_total, value_dim)
        self._rows_shape = (splits, ROW_FIGURES.value, rows_total)
        self._numbers = (call.scale, batch, *call.sizes, split_length)
        self._totals = (call.eps, rows_total, splits)
        options = {"HAS_EPS": call.eps > 0, "STATS": return_stats}
        self._decode = Launch(
            decode_kernel,
            (kv_programs, splits, tiles),
            {
                **call.constants(),
                **chosen.constants(),
                **options,
                "BLOCK_M": tile_rows,
                "STEERED": True,
                "BIAS_PER_HEAD": call.bias.shape[1] > 1,
                "SLICE_D": chosen.slice_d,
            },
        )
        self._reduce = Launch(
            reduce_kernel,
            (rows_total,),
            {
                **options,
                "VALUE_DIM": value_dim,
                "BLOCK_S": triton.next_power_of_2(splits),
                "BLOCK_DV": configurations.block_width(value_dim),
                "num_warps": configurations.reduction_warps(value_dim),
            },
        )

    def __call__(self, tensors: Tensors) -> Forward:
        """Launch on ``tensors`` of the prepared layout, and return what will have been written."""
        result = self._results()
        given = operands(tensors, self._strides)
        are_aligned = tensors.are_aligned
        device = self.call.device
        partial_out = torch.empty(*self._out_shape, dtype=torch.float32, device=device)
        partial_weighted = torch.empty(*self._out_shape, dtype=torch.float32, device=device) if self.call.eps else None
        partial_rows = torch.empty(*self._rows_shape, dtype=torch.float32, device=device)
        partial = (partial_out, partial_weighted, partial_rows)
        with on(device):
            self._decode(are_aligned, given, *partial, *self._numbers)
            self._reduce(True, *partial, result, *self._totals)
        return result


def split_keys(key_length: int, block_n: int, programs: int, multiprocessors: int) -> tuple[int, int]:
    """Splits of the keys and keys a split (whole blocks): ``programs`` × splits fill each multiprocessor twice."""
    blocks = triton.cdiv(key_length, block_n)
    wanted = max(1, min(blocks, _MOST_SPLITS, triton.cdiv(2 * multiprocessors, programs)))
    split_length = triton.cdiv(blocks, wanted) * block_n
    return triton.cdiv(key_length, split_length), split_length


def tune(call: Call, tensors: Tensors, return_stats: bool) -> None:
    """Measure the candidates for ``call``'s shape class, unless that was done before; needs CUDA. Decode has none."""
    if is_decode(call):
        return
    tuning.tune(
        torch.cuda.get_device_name(call.device),
        _problem(call, return_stats),
        from_table(call, return_stats),
        lambda configuration: Prefill(call, return_stats, configuration)(tensors),
    )
    # What was prepared knows nothing of the choice.
    prepared.cache_clear()


def choice(call: Call, return_stats: bool) -> Configuration:
    """What tuning has kept, else the table's."""
    if call.device.type == "cuda":
        chosen = tuning.kept(torch.cuda.get_device_name(call.device), _problem(call, return_stats))
        if chosen is not None:
            return chosen
    return from_table(call, return_stats)


def from_table(call: Call, return_stats: bool, wide: bool = False) -> Configuration:
    """The table's configuration, of the narrow kernel where there is one unless ``wide``."""
    arch = architecture(call.device)
    if has_narrow(call, return_stats) and not wide:
        return configurations.narrow(arch, call.shape_class[0], stats=return_stats)
    return configurations.prefill(
        arch, *call.shape_class, exact_sums=return_stats, has_eps=call.eps > 0, is_per_query=call.is_per_query
    )


def has_narrow(call: Call, return_stats: bool) -> bool:
    """Whether heads whose λb spans little have a kernel of their own."""
    if call.dtype == torch.float32 or call.is_per_query:
        return False
    # Over few keys statistics would show the rounding of each weight, and there is nothing to be gained.
    return call.sizes[3] >= NARROW_STATS_KEYS if return_stats else call.eps > 0


class _Results:
    """Allocates what the forward kernels write. What is not asked for is one empty tensor, always the same."""

    def __init__(self, call: Call, return_stats: bool) -> None:
        self._out = (*call.rows, call.value.shape[3])
        self._rows = call.rows
        self._stats = (5, *call.rows) if return_stats else None
        self._has_norm = call.eps > 0
        self._dtype = call.dtype
        self._device = call.device
        self._none = torch.empty(0, dtype=torch.float32, device=call.device)

    def __call__(self) -> Forward:
        device = self._device
        # Sizes one by one: torch takes longer over a tuple.
        out = torch.empty(*self._out, dtype=self._dtype, device=device)
        lse = torch.empty(*self._rows, dtype=torch.float32, device=device)
        norm = torch.empty(*self._rows, dtype=torch.float32, device=device) if self._has_norm else self._none
        stats = self._none if self._stats is None else torch.empty(*self._stats, dtype=torch.float32, device=device)
        return filled(Forward, (out, lse, norm, stats))


class _Describable(NamedTuple):
    shape: list[int]
    strides: list[int] | None
    block: list[int]

    def of(self, tensor: Tensor) -> TensorDescriptor:
        """``tensor`` described. Triton's own constructor asserts again, for 5 µs, what was looked at ahead."""
        found = TensorDescriptor.__new__(TensorDescriptor)
        found.base = tensor
        found.shape, found.strides, found.block_shape = self
        found.padding = "zero"
        found.round_f32_to_tf32 = False
        return found


def _describables(call: Call, chosen: Configuration) -> tuple[_Describable, _Describable] | None:
    """How the hardware describes keys and values; None where it can't, or the ``chosen`` kernel uses pointers."""
    if not chosen.descriptors:
        return None
    key, value = (
        _Describable(list(layout.shape), strides, [1, 1, chosen.block_n, configurations.block_width(width)])
        for layout, width in zip((call.key, call.value), call.head_dims, strict=True)
        for strides in [describable(layout.shape, layout.strides, call.dtype.itemsize)]
    )
    # Both or neither: each pair compiles to a kernel of its own.
    return None if key.strides is None or value.strides is None else (key, value)


def _descriptors(
    described: tuple[_Describable, _Describable] | None, tensors: Tensors, are_aligned: bool
) -> tuple[TensorDescriptor | None, TensorDescriptor | None]:
    if described is None or not are_aligned:
        return None, None
    key, value = described
    return key.of(tensors.key), value.of(tensors.value)


def _programs(call: Call, chosen: Configuration) -> int:
    batch, heads, query_length = call.rows
    # The last row of a block gathers its eps sums.
    queries = chosen.block_m - 1 if call.eps else chosen.block_m
    return triton.cdiv(query_length, queries) * batch * heads


def _problem(call: Call, return_stats: bool) -> str:
    batch, heads, _ = call.rows
    options = (call.is_causal, call.eps > 0, return_stats, call.is_per_query)
    return tuning.shape_class(call.dtype, call.head_dims, call.sizes[2:], batch * heads, options)

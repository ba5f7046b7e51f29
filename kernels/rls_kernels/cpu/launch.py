"""Tensors in, kernel calls out: strides and pointers, and the cases that take more than one pass over the keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rls_kernels.cpu import library as lib

# The one-pass kernel divides an unsteered weight out of a steered one, which float32 can do while strength * bias
# spans no more than this many powers of two: 24 bits of the weight itself must stay above 2^-126.
_ONE_PASS_RANGE = 96.0
# And only while strength * bias isn't so large that the unsteered score is rounded away beside it, also in nats.
_ONE_PASS_PEAK = 256.0


@dataclass(frozen=True)
class Operands:
    """What every call takes; shapes as in ``attention.steered_attention``."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    strength: Tensor
    key_lengths: Tensor | None
    scale: float
    is_causal: bool
    # Whether one of query, key and value had to be copied for its last axis to be dense.
    copied: bool = field(init=False)

    def __post_init__(self) -> None:
        given = self.matrices
        for name in ("query", "key", "value"):
            object.__setattr__(self, name, _dense(getattr(self, name)))
        object.__setattr__(self, "copied", any(was is not now for was, now in zip(given, self.matrices, strict=True)))
        for name in ("bias", "strength"):
            object.__setattr__(self, name, readable(getattr(self, name)))
        if self.key_lengths is not None:
            object.__setattr__(self, "key_lengths", self.key_lengths.to(torch.int32).contiguous())

    @property
    def row_shape(self) -> tuple[int, int, int]:
        return self.query.shape[0], self.query.shape[1], self.query.shape[2]

    @property
    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value

    @property
    def is_decode(self) -> bool:
        """Whether the kernel streams the keys."""
        return is_decode(self.query.shape[1], self.key.shape[1], self.query.shape[2])

    def call(self, eps: float, out: Tensor, want: int, rows: Tensor | None) -> lib.Call:
        """The C struct; the tensors must outlive it."""
        batch, query_heads, query_length = self.row_shape
        return lib.Call(
            batch=batch,
            query_heads=query_heads,
            kv_heads=self.key.shape[1],
            query_length=query_length,
            key_length=self.key.shape[2],
            head_dim=self.query.shape[3],
            value_dim=self.value.shape[3],
            dtype=lib.DTYPES[self.query.dtype],
            out_dtype=lib.DTYPES[out.dtype],
            is_causal=self.is_causal,
            want_rows=want,
            threads=torch.get_num_threads(),
            is_decode=self.is_decode,
            scale=self.scale,
            eps=eps,
            query=lib.view(self.query),
            key=lib.view(self.key),
            value=lib.view(self.value),
            out=lib.view(out),
            bias=self.bias.data_ptr(),
            bias_batch_stride=_stride(self.bias, 0),
            bias_head_stride=_stride(self.bias, 1),
            strength=self.strength.data_ptr(),
            strength_batch_stride=_stride(self.strength, 0),
            strength_head_stride=_stride(self.strength, 1),
            strength_query_stride=_stride(self.strength, 2),
            key_lengths=None if self.key_lengths is None else self.key_lengths.data_ptr(),
            rows=None if rows is None else rows.data_ptr(),
        )


class Launch:
    """The output alone, of operands shaped and laid out as those that it was made from; any number of threads may call
    one, and it keeps no tensor. Without statistics or gradients, and without eps unless the kernel decodes.

    ``check_values``: the kernel reads bias, strength and lengths before anything else.
    """

    def __init__(self, operands: Operands, eps: float = 0.0, check_values: bool = False) -> None:
        query = operands.query
        self._out_shape = (*operands.row_shape, operands.value.shape[3])
        self._out_is_like_query = query.shape == self._out_shape and query.is_contiguous()
        self._copies = operands.copied
        self._options = lib.CHECK_VALUES if check_values else 0
        library = lib.library()
        install(operands.query, operands.key)
        self._forward, self._isa = library.forward_like, library.isa().encode()
        # The kernel reads it and never writes to it; its pointers are those of each call.
        self._like = operands.call(eps, query.new_empty(self._out_shape), lib.NO_ROWS, None)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        strength: float | Tensor,
        key_lengths: Tensor | None = None,
    ) -> Tensor:
        """[B, Hq, Lq, Dv] in query's dtype.

        bias and strength are float32 with a dense last axis, their axes of 1 left out or not; lengths int32 or int64.
        Raises MemoryError, and ValueError for values that make no sense.
        """
        if self._copies:
            query, key, value = _dense(query), _dense(key), _dense(value)
        # The second takes twice as long.
        out = torch.empty_like(query) if self._out_is_like_query else query.new_empty(self._out_shape)
        options = self._options
        if key_lengths is None:
            lengths = None
        else:
            lengths = key_lengths.data_ptr()
            if key_lengths.dtype == torch.int64:
                options |= lib.WIDE_LENGTHS
        if isinstance(strength, Tensor):
            strengths, number = strength.data_ptr(), 0.0
        else:
            strengths, number = None, strength
        status = self._forward(
            self._isa,
            self._like,
            options,
            torch.get_num_threads(),
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            out.data_ptr(),
            bias.data_ptr(),
            strengths,
            number,
            lengths,
        )
        if status:
            lib.raise_for(status)
        return out


class DecodeRows:
    """Output and all rows of decode calls shaped and laid out as ``operands``, eps 0 and no gradients; any number of
    threads may call one, and it keeps no tensor."""

    def __init__(self, operands: Operands) -> None:
        self._row_shape, self._value_dim = operands.row_shape, operands.value.shape[3]
        install(operands.query, operands.key)
        self._like = operands.call(
            0.0, operands.query.new_empty((*self._row_shape, self._value_dim)), lib.ALL_ROWS, None
        )

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: Tensor, key_lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[B, Hq, Lq, Dv] in query's dtype and float32 [ROWS, B, Hq, Lq]; all tensors as ``Operands`` holds them."""
        out = query.new_empty((*self._row_shape, self._value_dim))
        rows = query.new_empty((lib.ROWS, *self._row_shape), dtype=torch.float32)
        # Copying the struct takes a tenth of building it.
        call = lib.Call.from_buffer_copy(self._like)
        call.threads = torch.get_num_threads()
        call.query.data, call.key.data, call.value.data = query.data_ptr(), key.data_ptr(), value.data_ptr()
        call.out.data, call.rows = out.data_ptr(), rows.data_ptr()
        call.bias, call.strength = bias.data_ptr(), strength.data_ptr()
        call.key_lengths = None if key_lengths is None else key_lengths.data_ptr()
        lib.library().forward(call)
        return out, rows


def install(query: Tensor, key: Tensor, backward: bool = False) -> None:
    """Have the kernel ready that ``forward`` of such operands takes and, where asked for, that of ``backward``.

    Raises BuildError.
    """
    for operation in operations(is_decode(query.shape[1], key.shape[1], query.shape[2]), backward):
        lib.library().install(operation, lib.DTYPES[query.dtype])


def operations(decodes: bool, backward: bool = False) -> list[int]:
    """What a call takes, as ``Library.install`` names it."""
    return [lib.DECODE if decodes else lib.PREFILL, *([lib.BACKWARD] if backward else [])]


def is_decode(query_heads: int, kv_heads: int, query_length: int) -> bool:
    """Few query rows a key-value head: the kernel streams the keys, and needs no second pass for anything."""
    return query_heads // kv_heads * query_length <= lib.DECODE_ROWS


def is_readable(figures: Tensor) -> bool:
    """Whether the kernel can read bias or strength where it lies."""
    return figures.dtype is torch.float32 and (figures.dim() == 0 or figures.stride(-1) == 1)


def readable(figures: Tensor) -> Tensor:
    """A bias or strength [B or 1, Hq or 1, ·] as ``Operands`` hold it."""
    return _dense(figures.float())


def forward(operands: Operands, eps: float, want: int) -> tuple[Tensor, Tensor]:
    """Output in query's dtype, and float32 rows [ROWS, B, Hq, Lq] (no planes where ``want`` is NO_ROWS)."""
    unsteered_too = eps > 0 or want == lib.ALL_ROWS
    if unsteered_too and not operands.is_decode and not _fits_one_pass(operands):
        return _in_passes(operands, eps, want)
    return _one_pass(operands, eps, want, operands.query.dtype)


def backward(operands: Operands, eps: float, grad_out: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """Gradients of query, key, value, bias and strength, each in its operand's shape and dtype.

    ``rows`` is what ``forward`` returned, with ``want`` at least NORMALISERS.
    """
    grad_out = _dense(grad_out)
    grads = [torch.empty_like(given, memory_format=torch.contiguous_format) for given in operands.matrices]
    grad_bias = operands.bias.new_empty((*operands.row_shape[:2], operands.key.shape[2]))
    grad_strength = operands.strength.new_empty(operands.row_shape)
    gradient = lib.Gradient(
        call=operands.call(eps, grad_out, lib.NORMALISERS, rows),
        grad_out=lib.view(grad_out),
        grad_query=lib.view(grads[0]),
        grad_key=lib.view(grads[1]),
        grad_value=lib.view(grads[2]),
        grad_bias=grad_bias.data_ptr(),
        grad_strength=grad_strength.data_ptr(),
    )
    lib.library().backward(gradient)
    return (*grads, grad_bias.sum_to_size(operands.bias.shape), grad_strength.sum_to_size(operands.strength.shape))


def _fits_one_pass(operands: Operands) -> bool:
    bias, strength = operands.bias, operands.strength
    if strength.shape[2] > 1:
        return False
    lowest, highest = (float(end) for end in bias.aminmax())
    steepest = float(strength.abs().amax())
    span, peak = steepest * (highest - lowest), steepest * max(highest, -lowest)
    return span / math.log(2) <= _ONE_PASS_RANGE and peak <= _ONE_PASS_PEAK


def _one_pass(operands: Operands, eps: float, want: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    out = operands.query.new_empty((*operands.row_shape, operands.value.shape[3]), dtype=dtype)
    rows = operands.query.new_empty((lib.ROWS if want else 0, *operands.row_shape), dtype=torch.float32)
    lib.library().forward(operands.call(eps, out, want, rows if want else None))
    return out, rows


def _in_passes(operands: Operands, eps: float, want: int) -> tuple[Tensor, Tensor]:
    """The same from a steered pass, an unsteered one and, for eps, one without scores.

    With r = sum A w and W = sum w over the visible keys, out = (r steered + eps W floor) / (r + eps W), where
    ``floor`` is the mean of v under the weights w alone: attention with a scale of 0.
    """
    steered, rows = _one_pass(operands, 0.0, lib.STEERED_ROWS, torch.float32)
    unsteered = replace(operands, strength=operands.strength.new_zeros(1, 1, 1))
    _, plain = _one_pass(unsteered, 0.0, lib.ALL_ROWS, torch.float32)
    for plane, source in ((lib.LSE, lib.LSE_STEERED), (lib.ENTROPY, lib.ENTROPY), (lib.MEAN_BIAS, lib.MEAN_BIAS)):
        rows[plane] = plain[source]
    log_ratio = rows[lib.LSE_STEERED] - rows[lib.LSE]
    rows[lib.LOG_NORMALISER] = log_ratio
    if eps > 0:
        floor, floor_rows = _one_pass(replace(operands, scale=0.0), 0.0, lib.NORMALISERS, torch.float32)
        log_floor = floor_rows[lib.LSE_STEERED] + math.log(eps)
        rows[lib.LOG_NORMALISER] = torch.logaddexp(log_ratio, log_floor)
        steered = torch.lerp(floor, steered, torch.sigmoid(log_ratio - log_floor)[..., None])
    rows[lib.DIVERGENCE] = log_ratio - operands.strength * rows[lib.MEAN_BIAS]
    out = steered.to(operands.query.dtype)
    lib.library().forward(operands.call(eps, out, lib.COARSE_ROWS, rows))
    return out, rows if want else rows[:0]


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _stride(tensor: Tensor, axis: int) -> int:
    return tensor.stride(axis) if tensor.shape[axis] > 1 else 0

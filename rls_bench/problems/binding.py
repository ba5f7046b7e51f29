"""The arguments of the operator: checked, and laid out as backends receive them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import BiasLayout, Problem, StrengthLayout

# What float32 holds: every number of a call is read in it.
LARGEST = torch.finfo(torch.float32).max
SMALLEST = torch.finfo(torch.float32).tiny
# Beside a larger eps nothing is left of A, in float64 either.
_MOST_EPS = 1e30
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_BIAS_LAYOUTS: dict[int, BiasLayout] = {1: "k", 2: "bk", 3: "bhk"}
_STRENGTH_LAYOUTS: dict[int, StrengthLayout] = {0: "scalar", 1: "h", 2: "bh", 3: "bhq"}


def bind(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: float | Tensor = 1.0,
    *,
    eps: float = 0.0,
    is_causal: bool = False,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_stats: bool = False,
    check_values: bool | None = None,
) -> Inputs:
    """The arguments of ``steered_attention``, checked and in the one layout that backends receive."""
    _check_operands(query, key, value, enable_gqa)
    batch, query_heads, query_length, head_dim = query.shape
    kv_heads, key_length = key.shape[1], key.shape[2]
    _check_options(eps, is_causal, scale, return_stats)
    _check_broadcast("bias", bias, _BIAS_LAYOUTS, _bias_shapes(batch, query_heads, key_length), query)
    if isinstance(strength, Tensor):
        _check_broadcast(
            "strength", strength, _STRENGTH_LAYOUTS, _strength_shapes(batch, query_heads, query_length), query
        )
    else:
        check_number("strength", strength)
    if key_lengths is not None:
        _check_key_lengths(key_lengths, batch, query)
    if reads_values(check_values, query) and not torch.compiler.is_compiling():
        check_steering(bias, strength)
        if key_lengths is not None:
            check_lengths(key_lengths, key_length)

    problem = Problem(
        batch=batch,
        query_heads=query_heads,
        kv_heads=kv_heads,
        query_length=query_length,
        key_length=key_length,
        head_dim=head_dim,
        value_dim=value.shape[3],
        dtype=_DTYPES[query.dtype],  # type: ignore[arg-type]
        device=query.device.type,
        is_causal=is_causal,
        has_key_lengths=key_lengths is not None,
        bias_layout=_BIAS_LAYOUTS[bias.ndim],
        strength_layout=_STRENGTH_LAYOUTS[strength.ndim] if isinstance(strength, Tensor) else "scalar",
        eps=_in_range(eps),
        return_stats=return_stats,
        requires_grad=torch.is_grad_enabled()
        and any(isinstance(t, Tensor) and t.requires_grad for t in (query, key, value, bias, strength)),
    )
    return Inputs(
        problem=problem,
        query=query,
        key=key,
        value=value,
        bias=lay_out_bias(bias),
        strength=lay_out_strength(strength, query.device),
        scale=head_dim**-0.5 if scale is None else float(scale),
        key_lengths=None if key_lengths is None else lay_out_lengths(key_lengths),
    )


def _in_range(eps: float) -> float:
    """``eps`` as kernels take it: 0 where float32 has nothing as small."""
    return 0.0 if eps < SMALLEST else min(float(eps), _MOST_EPS)


def reads_values(check_values: bool | None, query: Tensor) -> bool:
    """What the operator's ``check_values`` means for these operands."""
    return query.device.type == "cpu" if check_values is None else check_values


def lay_out_bias(bias: Tensor) -> Tensor:
    """float32 [B or 1, Hq or 1, Lk] from any layout that the operator takes, or from this one."""
    bias = bias.float()
    if bias.ndim == 1:
        return bias[None, None, :]
    return bias.unsqueeze(1) if bias.ndim == 2 else bias


def lay_out_strength(strength: float | Tensor, device: torch.device) -> Tensor:
    """float32 [B or 1, Hq or 1, Lq or 1] from a number, from any layout that the operator takes, or from this one."""
    if not isinstance(strength, Tensor):
        # A constant on the device: a copy from the host would stall a CUDA stream.
        return torch.full((1, 1, 1), float(strength), dtype=torch.float32, device=device)
    strength = strength.float()
    if strength.ndim == 0:
        return strength[None, None, None]
    if strength.ndim == 1:
        return strength[None, :, None]
    return strength[:, :, None] if strength.ndim == 2 else strength


def lay_out_lengths(key_lengths: Tensor) -> Tensor:
    """int32 [B]."""
    return key_lengths.to(torch.int32)


class KeptStrength:
    """The last number as a tensor: λ is the same in call after call, and making one takes longer than checking it."""

    def __init__(self, device: torch.device, ndim: int = 3) -> None:
        """A number becomes a tensor of ``ndim`` axes of 1; a tensor is laid out as ``lay_out_strength`` does."""
        self._device = device
        self._shape = (1,) * ndim
        # One tuple, so that another thread sees a number beside its own tensor.
        self._kept: tuple[float, Tensor] | None = None

    def lay_out(self, strength: float | Tensor) -> Tensor:
        """As ``lay_out_strength``, but for the axes of a number."""
        if isinstance(strength, Tensor):
            return lay_out_strength(strength, self._device)
        kept = self._kept
        if kept is None or kept[0] != strength:
            kept = self._kept = strength, lay_out_strength(strength, self._device).view(self._shape)
        return kept[1]


def _check_operands(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: wanted a Tensor; got {type(tensor).__name__}")
        _check_dense(name, tensor)
        if tensor.ndim != 4:
            raise ValueError(f"{name}: wanted 4 dimensions [batch, heads, length, head_dim]; got {_shape(tensor)}")
        if 0 in tensor.shape:
            raise ValueError(f"{name}: wanted no empty dimension; got {_shape(tensor)}")
    if query.dtype not in _DTYPES:
        raise TypeError(f"query: wanted dtype {', '.join(_DTYPES.values())}; got {_dtype(query)}")
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name}: wanted query's dtype {_dtype(query)}; got {_dtype(tensor)}")
        if tensor.device != query.device:
            raise ValueError(f"{name}: wanted query's device {query.device}; got {tensor.device}")
        if tensor.shape[0] != query.shape[0]:
            raise ValueError(f"{name}: wanted query's batch {query.shape[0]}; got {_shape(tensor)}")
    if key.shape[3] != query.shape[3]:
        raise ValueError(f"key: wanted query's head_dim {query.shape[3]}; got {_shape(key)}")
    if value.shape[1:3] != key.shape[1:3]:
        raise ValueError(f"value: wanted key's heads and length [{key.shape[1]}, {key.shape[2]}]; got {_shape(value)}")
    query_heads, kv_heads = query.shape[1], key.shape[1]
    if not isinstance(enable_gqa, bool):
        raise TypeError(f"enable_gqa: wanted a bool; got {type(enable_gqa).__name__}")
    if query_heads == kv_heads:
        return
    if not enable_gqa:
        raise ValueError(
            f"key: wanted query's {query_heads} heads; got {kv_heads} (pass enable_gqa=True to group them)"
        )
    if query_heads % kv_heads:
        raise ValueError(f"key: wanted heads that divide query's {query_heads}; got {kv_heads}")


def _check_options(eps: float, is_causal: bool, scale: float | None, return_stats: bool) -> None:
    check_number("eps", eps)
    if eps < 0.0:
        raise ValueError(f"eps: wanted a number >= 0; got {eps}")
    if scale is not None:
        check_number("scale", scale)
        if scale <= 0.0:
            raise ValueError(f"scale: wanted a number > 0; got {scale}")
        if not SMALLEST <= scale <= LARGEST:
            raise ValueError(f"scale: wanted a number that float32 holds, {SMALLEST:.3g} to {LARGEST:.3g}; got {scale}")
    for name, flag in (("is_causal", is_causal), ("return_stats", return_stats)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name}: wanted a bool; got {type(flag).__name__}")


def check_number(name: str, number: float) -> None:
    """Raise TypeError or ValueError unless ``number`` is a finite number, and a strength one that float32 holds."""
    # Nearly every call's: the questions below take as long as a short kernel's launch.
    if type(number) is float and (torch.compiler.is_dynamo_compiling() or -LARGEST <= number <= LARGEST):
        return
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{name}: wanted a number; got {type(number).__name__}")
    # A number that a trace doesn't know yet is a symbol, of which nothing can be asked.
    if torch.compiler.is_dynamo_compiling() or -LARGEST <= number <= LARGEST:
        return
    if not math.isfinite(number):
        raise ValueError(f"{name}: wanted a finite number; got {number}")
    if name == "strength":
        raise ValueError(f"strength: wanted a number that float32 holds, up to {LARGEST:.3g}; got {number:g}")


def _check_broadcast(
    name: str, tensor: Tensor, layouts: dict[int, Any], shapes: dict[int, tuple[int, ...]], query: Tensor
) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: wanted a Tensor of shape {_any_of(shapes)}; got {type(tensor).__name__}")
    _check_dense(name, tensor)
    if tensor.dtype not in (torch.float32, query.dtype):
        raise TypeError(f"{name}: wanted dtype float32 or query's {_dtype(query)}; got {_dtype(tensor)}")
    if tensor.device != query.device:
        raise ValueError(f"{name}: wanted query's device {query.device}; got {tensor.device}")
    if tensor.ndim not in layouts or tuple(tensor.shape) != shapes[tensor.ndim]:
        raise ValueError(f"{name}: wanted shape {_any_of(shapes)}; got {_shape(tensor)}")


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: wanted a dense Tensor; got a {str(tensor.layout).removeprefix('torch.')} one")


def _any_of(shapes: dict[int, tuple[int, ...]]) -> str:
    # Only where there is an error: text would turn a trace's symbols into constants.
    return ", ".join(str(list(shape)) for shape in shapes.values())


def _bias_shapes(batch: int, heads: int, keys: int) -> dict[int, tuple[int, ...]]:
    return {1: (keys,), 2: (batch, keys), 3: (batch, heads, keys)}


def _strength_shapes(batch: int, heads: int, queries: int) -> dict[int, tuple[int, ...]]:
    return {0: (), 1: (heads,), 2: (batch, heads), 3: (batch, heads, queries)}


def _check_key_lengths(key_lengths: Tensor, batch: int, query: Tensor) -> None:
    if not isinstance(key_lengths, Tensor):
        raise TypeError(f"key_lengths: wanted an integer Tensor of shape [{batch}]; got {type(key_lengths).__name__}")
    if key_lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"key_lengths: wanted dtype int32 or int64; got {_dtype(key_lengths)}")
    if tuple(key_lengths.shape) != (batch,):
        raise ValueError(f"key_lengths: wanted shape [{batch}]; got {_shape(key_lengths)}")
    if key_lengths.device != query.device:
        raise ValueError(f"key_lengths: wanted query's device {query.device}; got {key_lengths.device}")


def check_steering(bias: Tensor, strength: float | Tensor) -> None:
    """Raise ValueError for a tensor that holds what isn't finite, and where λ b may leave float32."""
    sizes = []
    for name, given in (("bias", bias), ("strength", strength)):
        sizes.append(largest(given) if isinstance(given, Tensor) else abs(float(given)))
        if isinstance(given, Tensor) and not math.isfinite(sizes[-1]):
            count = int((~given.isfinite()).sum())
            raise ValueError(f"{name}: wanted finite values; got {count} that are not")
    if sizes[0] * sizes[1] > LARGEST:
        raise ValueError(
            f"strength: wanted strength · bias within float32, up to {LARGEST:.3g}; got a strength of "
            f"{sizes[1]:.3g} and a bias of {sizes[0]:.3g}"
        )


def check_lengths(key_lengths: Tensor, key_length: int) -> None:
    """Raise ValueError unless all lengths are from 0 to ``key_length``."""
    shortest, longest = (int(length) for length in torch.aminmax(key_lengths))
    if shortest < 0 or longest > key_length:
        raise ValueError(f"key_lengths: wanted values from 0 to {key_length}; got {shortest} to {longest}")


def largest(tensor: Tensor) -> float:
    """The greatest absolute value; NaN where there is one."""
    lowest, highest = torch.aminmax(tensor.detach())
    return max(-lowest.item(), highest.item())


def _shape(tensor: Tensor) -> str:
    return f"shape {list(tensor.shape)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

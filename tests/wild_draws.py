"""Calls that real users make and nobody draws: any strides, dtypes, defaults, and numbers from 1e-38 to 1e38.

What is right is an interval. A logit is rounded at its own size, by ``slack`` at most; a row's output then lies among
the values of those keys whose exact logits come near the greatest, and near float64's output where the slack is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs

DEFAULTS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Scores up to this size leave float32 no products to overflow.
MOST_SCORE = 1e30


@dataclass(frozen=True)
class Wild:
    """Inputs, and the default dtype to call under."""

    inputs: Inputs
    default: torch.dtype


@st.composite
def wild_calls(draw: Any, **fixed: Any) -> Wild:
    """Calls in any layout; ``fixed`` pins options."""

    def pick(name: str, *options: Any) -> Any:
        return fixed[name] if name in fixed else draw(st.sampled_from(options))

    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, kv_heads = pick("batch", 1, 2), pick("kv_heads", 1, 2)
    heads = kv_heads * pick("group", 1, 3)
    query_length, key_length = pick("query_length", 1, 5, 19, 70), pick("key_length", 1, 8, 17, 40, 140)
    head_dim = pick("head_dim", 1, 3, 8, 16, 33, 64)
    value_dim = pick("value_dim", head_dim, head_dim, 5, 24)
    dtype = pick("dtype", torch.float32, torch.float32, torch.bfloat16, torch.float16)
    least, most = (-4, 4) if dtype == torch.float16 else (-37, 38)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def power(low: float, high: float) -> float:
        return 10.0 ** draw(st.floats(low, high))

    def laid_out(tensor: Tensor) -> Tensor:
        how = pick("strides", "dense", "dense", "last two swapped", "heads inside", "every other", "repeated")
        if how == "last two swapped":
            return tensor.mT.contiguous().mT
        if how == "heads inside":
            return tensor.transpose(1, 2).contiguous().transpose(1, 2)
        if how == "every other":
            return torch.stack((tensor, torch.full_like(tensor, torch.nan)), -1).flatten(-2)[..., ::2]
        return tensor[..., :1].expand(tensor.shape) if how == "repeated" else tensor

    # Sizes whose products stay below MOST_SCORE, and of the dtype.
    plain = pick("plain", True, True, False)
    query_size = 1.0 if plain else power(least, min(most, 29 - 1))
    key_size = 1.0 if plain else min(power(least, most), MOST_SCORE / 100 / head_dim / max(query_size, 1.0))
    value_size = 1.0 if plain else power(least, most - 1)

    def steering(*shape: int) -> Tensor:
        kind = pick("numbers", "plain", "plain", "wide", "suppressed", "lifted")
        signs = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
        if kind == "plain":
            return normal(*shape)
        if kind == "wide":
            return signs * 10.0 ** (torch.rand(shape, generator=generator) * 75 - 37)
        low = pick("low", torch.finfo(torch.float32).min, -1e9, -1e4)
        chosen = torch.rand(shape, generator=generator) < pick("share", 0.3, 0.9, 1.0)
        return torch.where(chosen, low if kind == "suppressed" else -low / 2, normal(*shape))

    bias_shape = pick("bias_layout", (key_length,), (batch, key_length), (batch, heads, key_length))
    strength_shape = pick("strength_layout", (), (heads,), (batch, heads), (batch, heads, query_length))
    bias = steering(*bias_shape).contiguous()
    room = math.log10(3.4e38 / max(float(bias.abs().max()), 1e-30)) - 0.01
    size = pick("strength", 1.0, 3.0, -2.0, 0.0, power(-37, 38))
    strength = (
        min(abs(size), 10.0 ** min(room, 38))
        * math.copysign(1.0, size)
        * torch.rand(strength_shape, generator=generator)
    )
    if pick("bias_strides", "dense", "every other") == "every other":
        bias = torch.stack((bias, torch.full_like(bias, torch.nan)), -1).flatten(-2)[..., ::2]
    lengths = None
    query, key, value = (
        laid_out((tensor * tensor_size).to(dtype))
        for tensor, tensor_size in (
            (normal(batch, heads, query_length, head_dim), query_size),
            (normal(batch, kv_heads, key_length, head_dim), key_size),
            (normal(batch, kv_heads, key_length, value_dim), value_size),
        )
    )
    if pick("padded", False, False, True):
        lengths = torch.randint(0, key_length + 1, (batch,), generator=generator)
        hidden = (torch.arange(key_length) >= lengths[:, None])[:, None, :, None]
        garbage = pick("garbage", math.nan, math.inf, 1e4)
        key, value = (torch.where(hidden, garbage, tensor).to(dtype) for tensor in (key, value))
    inputs = bind(
        query,
        key,
        value,
        bias,
        strength,
        eps=pick("eps", 0.0, 0.0, 1e-9, power(-38, 38)),
        is_causal=pick("causal", False, True),
        key_lengths=lengths,
        enable_gqa=True,
        return_stats=pick("stats", False),
    )
    return Wild(inputs, pick("default", *DEFAULTS))


def complaint(inputs: Inputs, output: Tensor, exact: Tensor, slack_of_bias: float = 2.0**-21) -> str:
    """What is wrong with ``output``, or an empty string; ``exact`` is float64's. ``slack_of_bias`` is relative."""
    if output.shape != exact.shape or output.dtype != inputs.query.dtype:
        return f"{list(output.shape)} {output.dtype}"
    if not bool(output.isfinite().all()):
        return f"{int((~output.isfinite()).sum())} of {output.numel()} elements aren't finite"
    problem, dtype = inputs.problem, inputs.query.dtype
    group = problem.group_size
    key, value = (t.double().repeat_interleave(group, 1) for t in inputs.without_padding())
    scores = inputs.scale * inputs.query.double() @ key.mT
    added = inputs.strength.double()[..., None] * inputs.bias.double()[:, :, None, :]
    visible = inputs.visible()
    seen = torch.ones_like(scores, dtype=torch.bool) if visible is None else visible.expand(scores.shape)

    def most(tensor: Tensor) -> Tensor:
        return tensor.abs().masked_fill(~seen, 0.0).amax(-1, keepdim=True)

    rounding = torch.finfo(dtype).eps
    # Also of each product that a score is summed from.
    products = inputs.scale * inputs.query.double().abs() @ key.abs().mT
    slack = 4 * rounding * most(products) + slack_of_bias * most(added) + 1e-6
    logits = scores + added
    if problem.eps:
        plain = scores.masked_fill(~seen, -math.inf).log_softmax(-1)
        logits = torch.logaddexp(plain, torch.tensor(problem.eps, dtype=torch.float64).log()) + added
        slack = slack + 2.0**-21 * abs(math.log(problem.eps))
    logits = logits.masked_fill(~seen, -math.inf)
    near = seen & (logits >= logits.amax(-1, keepdim=True) - 2 * slack - 60)
    size = value.abs().amax((-2, -1), keepdim=True)
    # A value that no normal number of the dtype holds is rounded more.
    least = torch.finfo(dtype).tiny * 0.01
    allowed = 8 * rounding * size + least
    lowest = torch.where(near[..., None], value[:, :, None], math.inf).amin(-2)
    highest = torch.where(near[..., None], value[:, :, None], -math.inf).amax(-2)
    found, empty = output.double(), ~seen.any(-1, keepdim=True)
    outside = ~empty & ((found < lowest - allowed) | (found > highest + allowed))
    if bool(outside.any()):
        return f"{int(outside.any(-1).sum())} rows lie outside the values that they see"
    off = (found - exact).abs() > torch.expm1((2 * slack).clamp_max(1.0)) * 2 * size + allowed
    return (
        f"{int(off.any(-1).sum())} rows are off by {float((found - exact).abs().max()):.2g}" if bool(off.any()) else ""
    )

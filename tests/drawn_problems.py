"""Drawn problems: what hypothesis varies, and the tensors that belong to it."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs

LENGTHS = (1, 7, 63, 111, 129)


@st.composite
def drawn_inputs(draw: Any, **fixed: Any) -> Inputs:
    """Inputs over odd lengths, head dims, groupings, masks, strengths, eps and every layout; ``fixed`` pins options."""

    def pick(name: str, options: Any) -> Any:
        return fixed[name] if name in fixed else draw(st.sampled_from(options))

    batch, kv_heads = pick("batch", (1, 2)), pick("kv_heads", (1, 2))
    heads = kv_heads * pick("group_size", (1, 3, 4))
    query_length, key_length = pick("query_length", LENGTHS), pick("key_length", LENGTHS)
    head_dim = pick("head_dim", (16, 24, 64, 80, 128, 256))
    dtype = getattr(torch, pick("dtype", ("float32", "bfloat16", "float16")))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    bias_shape = {"k": (key_length,), "bk": (batch, key_length), "bhk": (batch, heads, key_length)}
    strength_shape = {"scalar": (), "h": (heads,), "bh": (batch, heads), "bhq": (batch, heads, query_length)}
    knob = pick("strength", (-100.0, -1.0, 0.0, 0.5, 20.0, 100.0))
    layout = pick("strength_layout", tuple(strength_shape))
    strength = knob * torch.rand(strength_shape[layout], generator=generator)
    lengths = None
    if pick("has_key_lengths", (False, True)):
        lengths = torch.randint(0, key_length + 1, (batch,), generator=generator)
    return bind(
        normal(batch, heads, query_length, head_dim).to(dtype),
        normal(batch, kv_heads, key_length, head_dim).to(dtype),
        normal(batch, kv_heads, key_length, pick("value_dim", (head_dim, head_dim, 40))).to(dtype),
        normal(*bias_shape[pick("bias_layout", tuple(bias_shape))]),
        strength,
        eps=pick("eps", (0.0, 0.0, 1e-9, 1e-3)),
        is_causal=pick("is_causal", (False, True)),
        key_lengths=lengths,
        enable_gqa=True,
        return_stats=pick("return_stats", (False,)),
    )

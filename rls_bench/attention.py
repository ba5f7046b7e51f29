"""``steered_attention``: bind the arguments, resolve the backend, call it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.policy import dispatch
from rls_bench.policy import lookup as policies
from rls_bench.problems.binding import bind
from rls_bench.problems.problem import Problem

_FIELDS = tuple(field.name for field in fields(Problem))


def steered_attention(
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
    backend: str = "auto",
    return_stats: bool = False,
    check_values: bool | None = None,
    policy: str | Path | None = None,
) -> Any:
    """Attention steered by a saliency: ``softmax(log(softmax(Z) + eps) + λ b) v`` with ``Z = scale · q kᵀ``.

    Args:
        query: [B, Hq, Lq, D] in float32, bfloat16 or float16.
        key: [B, Hkv, Lk, D], value: [B, Hkv, Lk, Dv], in query's dtype and on its device.
        bias: b, the saliency of each key: [Lk], [B, Lk] or [B, Hq, Lk], finite, float32 or query's dtype.
        strength: λ: a number, or a tensor [], [Hq], [B, Hq] or [B, Hq, Lq], finite, float32 or query's dtype.
        eps: floor of the published formula, ≥ 0; given to visible keys only.
        is_causal: query i sees key j where j <= i + Lk - Lq (bottom-right aligned).
        key_lengths: int [B]; keys at and past a length are padding and never seen.
        scale: factor of the scores; D ** -0.5 where None.
        enable_gqa: let Hq be a multiple of Hkv.
        backend: a registered name, which runs or raises; "auto" asks the policy.
        return_stats: also return AttentionStats, float32 [B, Hq, Lq] each.
        check_values: whether to read bias, strength and key_lengths for values that make no sense. None: on CPU
            tensors only, since on CUDA it would stall the stream and break graph capture.
        policy: the file that "auto" asks, before any other.

    Returns:
        The output [B, Hq, Lq, Dv] in query's dtype, or ``(output, AttentionStats)``. A query that sees no key gets 0.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it, what was wanted and what came.
        UnknownBackend, BackendUnavailable, BackendUnsupported: the backend asked for cannot run.
    """
    inputs = bind(
        query,
        key,
        value,
        bias,
        strength,
        eps=eps,
        is_causal=is_causal,
        key_lengths=key_lengths,
        scale=scale,
        enable_gqa=enable_gqa,
        return_stats=return_stats,
        check_values=check_values,
    )
    chosen = _backend_for(backend, inputs.problem, policy)
    return chosen.prepare(inputs)()


def explain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: float | Tensor = 1.0,
    *,
    policy: str | Path | None = None,
    **options: Any,
) -> policies.Choice:
    """Which backend ``steered_attention`` takes for these arguments with ``backend="auto"``, and why; runs nothing."""
    return policies.explain(bind(query, key, value, bias, strength, **options).problem, policy)


def _backend_for(name: str, problem: Problem, policy: str | Path | None) -> Backend:
    """The backend that does ``problem``: loaded, available and willing, or an error that says what is missing."""
    if torch.compiler.is_compiling():
        # Loaded here alone: it pulls in torch's compiler, which takes longer to import than torch itself.
        from rls_bench.policy import traced

        return registry.LOADED[traced.resolve(name, policy, *(getattr(problem, field) for field in _FIELDS))]
    return registry.LOADED[dispatch.resolve(name, problem, policy)]

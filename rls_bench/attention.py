"""``steered_attention``: bind the arguments, resolve the backend, call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.machines import vector_math
from rls_bench.planning import memory
from rls_bench.planning.likeness import is_plain
from rls_bench.planning.memory import Remembered
from rls_bench.planning.plan import Plan, likeness_of
from rls_bench.planning.watching import is_watched
from rls_bench.policy import dispatch
from rls_bench.policy import lookup as policies
from rls_bench.problems.binding import bind, check_number, reads_values
from rls_bench.problems.problem import Problem
from rls_bench.traffic import counting, recording


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
        scale: factor of the scores, > 0; D ** -0.5 where None.
        enable_gqa: let Hq be a multiple of Hkv.
        backend: a registered name, which runs or raises; "auto" asks the policy.
        return_stats: also return AttentionStats, float32 [B, Hq, Lq] each.
        check_values: whether to read bias, strength and key_lengths for values that make no sense, and for products
            λ b beyond float32. None: on CPU tensors only, since on CUDA it would stall the stream and break graph
            capture.
        policy: the file that "auto" asks, before any other.

    Numbers: any that float32 holds, from 1.2e-38 to 3.4e38 in size; eps below counts as 0, and beyond 1e30 as that.
    λ b is a float32 product, refused where one would leave its range. A row's result is float64's on the same numbers,
    up to the rounding of its logits in float32 at their own size, also where all that the row sees is suppressed by
    -3.4e38; logits beyond 1e16 are all that float64 tells apart itself. It is never a plausible number where a kernel
    can't do that: such a backend refuses values that it can read (``valuefold``, ``keyfold`` in float16), or gives NaN
    (scores that overflow query's dtype in ``eager``, or float32). "cpu" works such rows out in float64. Where values
    aren't read (``check_values``), "triton" and "keyfold" let λ b saturate, and "triton" with eps tells scores apart
    beside any λ b, as exact sums would. What padding holds is never seen, NaN included: backends on torch's kernels
    zero it, which takes a copy of keys and values where lengths are given. An autocast around the call casts nothing
    in it, and torch's default dtype and device are asked for nothing.

    Derivatives: the output's and the statistics' flow to query, key, value, bias and strength, where the backend gives
    any. Forward mode is for "eager" and "sdpa-math"; the others raise.

    Returns:
        The output [B, Hq, Lq, Dv] in query's dtype, or ``(output, AttentionStats)``. A query that sees no key gets 0.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it, what was wanted and what came.
        UnknownBackend, BackendUnavailable, BackendUnsupported: the backend asked for cannot run.
    """
    in_sight = torch.compiler.is_dynamo_compiling() or is_watched()
    kind: tuple[Any, ...] | None = None
    if not in_sight:
        tensors: tuple[Any, ...] = (query, key, value, bias)
        if isinstance(strength, Tensor):
            tensors += (strength,)
        if key_lengths is not None:
            tensors += (key_lengths,)
        options = (eps, scale, is_causal, enable_gqa, return_stats, check_values, backend, policy)
        try:
            decided_by = policies.stamp(policy) if backend == "auto" else registry.LOADED.get(backend)
            # To a dictionary True is 1 and 1 is 1.0; the operator takes one where it refuses the other.
            types = (type(strength), type(eps), type(scale), type(is_causal), type(enable_gqa), type(return_stats))
            kind = (query.shape, key.shape, key_lengths is None, options, types, decided_by)
            remembered = memory.recall(kind, tensors)
        except (AttributeError, TypeError):
            # No tensor, or an option that can be no key: the checks below say what is wrong.
            remembered = None
        if remembered is not None:
            if not isinstance(strength, Tensor):
                check_number("strength", strength)
            if counting.active:
                counting.count(remembered.problem)
            launch = remembered.launch
            return launch.run(query, key, value, launch.steer(bias, strength, launch.see(key_lengths)))

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
    vector_math.settle()
    if not torch.compiler.is_compiling():
        recording.follow_environment()
        if counting.active:
            counting.count(inputs.problem)
    if kind is None or not is_plain(*tensors):
        return chosen.prepare(inputs)()
    launch = chosen.launch(inputs, reads_values(check_values, query))
    likeness = likeness_of(query, key, value, bias, strength, key_lengths)
    memory.keep(kind, Remembered(likeness, launch, inputs.problem))
    return launch.run(query, key, value, launch.steer(bias, strength, launch.see(key_lengths)))


def plan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: float | Tensor = 1.0,
    *,
    key_lengths: Tensor | None = None,
    backend: str = "auto",
    check_values: bool | None = None,
    policy: str | Path | None = None,
    **options: Any,
) -> Plan:
    """Check a call and choose its backend once, for many calls whose tensors have the same metadata.

    Takes what ``steered_attention`` takes, and raises what it raises. ``plan(query, key, value, bias, strength)`` only
    runs then; bias and strength may be left out for those given here.
    """
    inputs = bind(query, key, value, bias, strength, key_lengths=key_lengths, check_values=check_values, **options)
    chosen = dispatch.resolve(backend, inputs.problem, policy)
    vector_math.settle()
    recording.follow_environment()
    return Plan(chosen, inputs, bias, strength, key_lengths, reads_values(check_values, query))


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

        return traced.resolve(name, policy, problem)
    return registry.LOADED[dispatch.resolve(name, problem, policy)]

"""The call that is timed where a problem asks for gradients: forward, and backward for one fixed upstream gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends.interface import Backend, Call
from rls_bench.planning.repeated import repeated
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


def operands(problem: Problem) -> tuple[str, ...]:
    """What gets a gradient: query, key, value and bias, and the strength where it is a tensor."""
    return ("query", "key", "value", "bias", *["strength"] * (problem.strength_layout != "scalar"))


def shapes(problem: Problem) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of the gradient of each of ``operands``, as ``Inputs`` has them."""
    batch, heads, keys = problem.batch, problem.query_heads, problem.key_length
    layout, by = problem.bias_layout, problem.strength_layout
    dtype = getattr(torch, problem.dtype)
    every = {
        "query": ((batch, heads, problem.query_length, problem.head_dim), dtype),
        "key": ((batch, problem.kv_heads, keys, problem.head_dim), dtype),
        "value": ((batch, problem.kv_heads, keys, problem.value_dim), dtype),
        "bias": ((batch if "b" in layout else 1, heads if "h" in layout else 1, keys), torch.float32),
        "strength": ((batch if "b" in by else 1, heads, problem.query_length if "q" in by else 1), torch.float32),
    }
    return {name: every[name] for name in operands(problem)}


def upstream(problem: Problem) -> Tensor:
    """The gradient that comes back to the output, [B, Hq, Lq, Dv] in query's dtype: standard normal, ever the same."""
    shape = problem.batch, problem.query_heads, problem.query_length, problem.value_dim
    drawn = torch.randn(
        shape, generator=torch.Generator().manual_seed(math.prod(shape)), dtype=torch.float32, device="cpu"
    )
    return drawn.to(device=problem.device, dtype=getattr(torch, problem.dtype))


def prepared(backend: Backend, inputs: Inputs) -> Call:
    """``backend``'s call on ``inputs``; where their problem asks for gradients, with its backward.

    Such a call returns (what the backend's returns, the gradients of ``operands``), each tensor anew and None where the
    backend gives no gradient. Statistics get an upstream gradient of ones. What the backend doesn't steer has no
    gradient to give for what it ignores, and zeros stand in.
    """
    problem = inputs.problem
    if not problem.requires_grad:
        return repeated(backend, inputs)
    # In the memory of the inputs themselves, so that new values there are seen.
    leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in operands(problem)}
    forward = backend.prepare(replace(inputs, **leaves))
    output_gradient, wanted = upstream(problem), list(leaves.values())
    rows = problem.batch, problem.query_heads, problem.query_length
    ones = torch.ones(rows, dtype=torch.float32, device=problem.device)

    def call() -> Any:
        result = forward()
        outputs = [result[0], *result[1]] if problem.return_stats else [result]
        gradients = torch.autograd.grad(
            outputs,
            wanted,
            [output_gradient, *[ones] * (len(outputs) - 1)],
            # Zeroing what padding holds is done once, and its part of the graph serves every call.
            retain_graph=problem.has_key_lengths,
            allow_unused=True,
            materialize_grads=not backend.steers,
        )
        return result, gradients

    return call

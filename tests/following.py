"""Whether a prepared call goes by what its inputs hold when it is called, as the interface has it."""

from __future__ import annotations

from dataclasses import replace

import torch

from rls_bench import agreement
from rls_bench.backends import registry
from rls_bench.problems.draw import draw
from rls_bench.problems.grammar import parse

# Layouts and options for which backends make copies.
WORDS = (
    "B2 H4/2 Lq7 Lk63 D16 fp32",
    "B2 H4/2 Lq7 Lk63 D16 fp32 padded",
    "B2 H4 Lq7 Lk63 D16 bf16 λ[bh] b[bhk] padded",
    "B1 H2 L33 D16 fp32 causal",
    "B2 H4/2 Lq7 Lk63 D16 fp32 padded eps=0.001",
    "B1 H2 Lq1 Lk63 D16 bf16",
)


def follows(name: str, words: str) -> str:
    """Why the backend's second call is wrong, after query, bias and strength have changed in place; "" where right."""
    problem = replace(parse(words), inputs="random")
    backend = registry.get(name)
    if not backend.supports(problem):
        return ""
    inputs = draw(problem)
    call = backend.prepare(inputs)
    call()
    others = draw(replace(problem, seed=1))
    for tensor, other in (
        (inputs.query, others.query),
        (inputs.bias, others.bias),
        (inputs.strength, torch.full_like(inputs.strength, -0.75)),
    ):
        tensor.copy_(other)
    verdict = agreement.judge(agreement.inputs_for(backend, inputs), call())
    return "" if verdict.passed else f"{name}, {words}: {verdict.reason}"

"""What the gradients of a call are, in float64, and whether a backend's are those."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rls_bench.agreement import judgement
from rls_bench.machines.threads import one_thread
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.referee import truth
from rls_bench.referee.contents import Contents
from rls_bench.timing import training

# Beside twice what eager's own differ by, gradients may differ by this share of their norm: half precision by its own
# rounding, float32 by what sums of its many terms lose.
_TOLERANCE = {"float32": 2e-4, "bfloat16": 2**-7, "float16": 2**-10}
# A norm smaller than this is measured as if it were as large.
_SMALLEST = 1e-3
# Scores of a problem whose every head is looked at; of a larger one it is the heads of one key-value head, drawn anew
# each time, and no sum over heads.
_MOST_SCORES = 1 << 22
# Scores that are differentiated at once.
_SCORES_AT_ONCE = 1 << 21
# Forward of some rows of one head: the output and, where the problem asks for them, the statistics.
_Form = Callable[[Inputs, Tensor], list[Tensor]]


class Gradients:
    """Judges gradients; remembers how far eager's own are off, which is much the same for any contents."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._by_eager: dict[tuple[int, bool], dict[str, float]] = {}

    def stray(self, found: dict[str, Tensor], inputs: Inputs, contents: Contents, steers: bool) -> str:
        """The first gradient that is off, or an empty string; ``inputs`` are those of the call, of ``contents``."""
        problem = inputs.problem
        heads = _heads(problem, f"{self._salt} {contents}")
        whole = len(heads) == problem.batch * problem.query_heads
        names = [name for name in training.operands(problem) if steers or name in ("query", "key", "value")]
        if not whole:
            # Only these are of few heads.
            names = [name for name in names if name in ("query", "key", "value")]
        with one_thread() if whole else nullcontext():
            wanted = _of(_oracle, inputs, torch.float64, names, heads)
        kind = contents.bias, steers
        if kind not in self._by_eager:
            eager = _of(_eager, inputs, torch.float32, names, heads)
            shares = {name: _off(eager[name], wanted[name], heads, problem) for name in names}
            # Where eager's leave its dtype, as float16's scores may, once more the tolerance stands in.
            stand_in = _TOLERANCE[problem.dtype] / 2
            self._by_eager[kind] = {
                name: float(share.where(share.isfinite(), stand_in).max()) for name, share in shares.items()
            }
        for name in names:
            allowed = 2 * self._by_eager[kind][name] + _TOLERANCE[problem.dtype]
            worst = float(_off(found[name], wanted[name], heads, problem).max())
            # What must be shown to hold, so that nothing passes on NaN.
            if not worst <= allowed:
                return f"gradient of {name} is off by {worst:.2g} of its size; at most {allowed:.2g}"
        return ""


def _heads(problem: Problem, seed: str) -> list[tuple[int, int]]:
    """(batch, query head) of what is looked at."""
    every = [(batch, head) for batch in range(problem.batch) for head in range(problem.query_heads)]
    if len(every) * problem.query_length * problem.key_length <= _MOST_SCORES:
        return every
    batch, chosen = random.Random(seed).choice([(b, h // problem.group_size) for b, h in every])
    return [(b, h) for b, h in every if b == batch and h // problem.group_size == chosen]


def _off(found: Tensor, wanted: Tensor, heads: list[tuple[int, int]], problem: Problem) -> Tensor:
    """How far gradients are off relative to their size: [n] by head looked at, or [1] of bias and strength."""
    found, wanted = found.double().cpu(), wanted.double().cpu()
    if wanted.ndim == 4:
        shared = wanted.shape[1] != problem.query_heads
        which = [(b, h // problem.group_size if shared else h) for b, h in heads]
        found, wanted = (torch.stack([each[place] for place in which]).flatten(1) for each in (found, wanted))
    else:
        found, wanted = found.reshape(1, -1), wanted.reshape(1, -1)
    off = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp_min(_SMALLEST)
    return off.masked_fill(off.isnan(), torch.inf)


def _of(
    form: _Form, inputs: Inputs, dtype: torch.dtype, names: list[str], heads: list[tuple[int, int]]
) -> dict[str, Tensor]:
    """Gradients of ``names`` through ``form``, summed over ``heads`` in ``dtype``; one head's rows at a time."""
    leaves = {name: getattr(inputs, name).detach().to(dtype).requires_grad_() for name in names}
    upstream = training.upstream(inputs.problem)
    for batch, head in heads:
        for rows in _bites(inputs.problem):
            figures = form(_one_head(replace(inputs, **leaves), batch, head), rows)
            output_gradient = upstream[batch, head][rows].to(figures[0])[None, None]
            torch.autograd.backward(figures, [output_gradient, *map(torch.ones_like, figures[1:])])
    zeros = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    return {name: zeros[name] if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}


def _bites(problem: Problem) -> Iterator[Tensor]:
    """All queries, some at a time."""
    return iter(torch.arange(problem.query_length, device="cpu").split(max(1, _SCORES_AT_ONCE // problem.key_length)))


def _oracle(part: Inputs, rows: Tensor) -> list[Tensor]:
    return list(judgement.oracle(part, rows))[: 6 if part.problem.return_stats else 1]


def _eager(part: Inputs, rows: Tensor) -> list[Tensor]:
    dtype = getattr(torch, part.problem.dtype)
    output, stats = truth.attend(part.with_operands(*(t.to(dtype) for t in (part.query, part.key, part.value))), rows)
    return [output, *(stats or ())]


def _one_head(inputs: Inputs, batch: int, head: int) -> Inputs:
    """The call of one query head of one sequence."""

    def of(tensor: Tensor, at: int) -> Any:
        # An axis of 1 is every sequence's and every head's.
        whole = tensor if tensor.shape[0] == 1 else tensor[batch : batch + 1]
        return whole if tensor.shape[1] == 1 else whole[:, at : at + 1]

    group = head // inputs.problem.group_size
    lengths = inputs.key_lengths
    return Inputs(
        replace(inputs.problem, batch=1, query_heads=1, kv_heads=1),
        of(inputs.query, head),
        of(inputs.key, group),
        of(inputs.value, group),
        of(inputs.bias, head),
        of(inputs.strength, head),
        inputs.scale,
        None if lengths is None else lengths[batch : batch + 1],
    )

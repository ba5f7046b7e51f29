"""What is right on each of a problem's draws, worked out where no backend's code was ever loaded.

Some rows are held against the float64 oracle: a tile of neighbours, the last row, and others drawn at random, anew in
each run. Every row is held against a plain float32 form, which is as good as the oracle to all but the last digits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from rls_baselines.eager import eager_attention, row_statistics
from rls_baselines.reference import OracleResult
from torch import Tensor

from rls_bench.agreement import judgement
from rls_bench.backends.interface import AttentionStats
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

# Scores that the oracle works out for one pair of draws; the rows of a larger problem are drawn.
_MOST_SCORES = 1 << 20
# Scores that the plain form holds at once: about what a cache does.
_SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}


@dataclass(frozen=True)
class Truth:
    """What is right on one pair of draws.

    ``exact`` is the oracle's, float64, of some rows; ``eager`` and ``eager_stats`` what eager attention gives of them
    in the inputs' dtype, float64 [B, Hq, rows, Dv] and [B, Hq, rows]; ``plain`` float32 [B, Hq, Lq, Dv] and
    ``plain_stats`` float32 [B, Hq, Lq] are of every row, worked out when first asked for: at λ = 0 only backends that
    don't steer are held against them, while every floor needs the others.
    """

    exact: OracleResult
    eager: Tensor
    eager_stats: AttentionStats | None
    inputs: Callable[[], Inputs]

    @property
    def plain(self) -> Tensor:
        return self._every_row[0]

    @property
    def plain_stats(self) -> AttentionStats | None:
        return self._every_row[1]

    @cached_property
    def _every_row(self) -> tuple[Tensor, AttentionStats | None]:
        return _plain(self.inputs())


def rows_to_judge(problem: Problem, seed: str) -> Tensor:
    """Indices of the queries that the oracle is asked about, int64, sorted."""
    whole = problem.query_length
    count = max(1, min(whole, _MOST_SCORES // (problem.batch * problem.query_heads * problem.key_length)))
    if count == whole:
        return torch.arange(whole, device="cpu")
    draw = random.Random(f"{seed} rows")
    if count == 1:
        return torch.tensor([draw.randrange(whole)], device="cpu")
    tile = count // 2
    first = draw.randrange(whole - tile + 1)
    chosen = {whole - 1, *range(first, first + tile)}
    others = [row for row in range(whole) if row not in chosen]
    return torch.tensor(sorted(chosen | set(draw.sample(others, count - len(chosen)))), device="cpu")


def of(make: Callable[[], Inputs], rows: Tensor) -> Truth:
    """Ask the oracle about ``rows`` of the inputs that ``make`` gives, and the plain form, once needed, about all."""
    inputs = make()
    exact = judgement.oracle(inputs, rows)
    eager, eager_stats = attend(inputs, rows)
    return Truth(exact, eager.double().cpu(), None if eager_stats is None else _to_double(eager_stats), make)


def unsteered(inputs: Inputs) -> Inputs:
    """The same call with λ = 0."""
    return replace(inputs, strength=torch.zeros_like(inputs.strength))


def _plain(inputs: Inputs) -> tuple[Tensor, AttentionStats | None]:
    """Steered attention of every row in float32, and its statistics where the problem asks for them."""
    query, key, value = (each.float() for each in (inputs.query, inputs.key, inputs.value))
    wide = inputs.with_operands(query, key, value)
    parts = [attend(wide, rows) for rows in _bites(inputs.problem)]
    output = torch.cat([part for part, _ in parts], dim=2).cpu()
    if not inputs.problem.return_stats:
        return output, None
    columns = zip(*(stats for _, stats in parts if stats is not None), strict=True)
    return output, AttentionStats(*(torch.cat(column, dim=2).cpu() for column in columns))


def _bites(problem: Problem) -> Iterator[Tensor]:
    """All queries, so many at once that their scores fit."""
    most = _SCORES_AT_ONCE["cuda" if problem.device.startswith("cuda") else "cpu"]
    count = max(1, most // (problem.batch * problem.query_heads * problem.key_length))
    return iter(torch.arange(problem.query_length, device="cpu").split(count))


def attend(inputs: Inputs, rows: Tensor) -> tuple[Tensor, AttentionStats | None]:
    """Eager attention of the queries ``rows`` in the operands' own dtype."""
    rows = rows.to(inputs.query.device)
    visible = inputs.visible()
    if visible is not None and visible.shape[2] > 1:
        visible = visible.index_select(2, rows)
    strength = inputs.strength if inputs.strength.shape[2] == 1 else inputs.strength.index_select(2, rows)
    output, scores, steered = eager_attention(
        inputs.query.index_select(2, rows),
        inputs.key,
        inputs.value,
        replace(inputs, strength=strength).logit_bias(),
        visible,
        eps=inputs.problem.eps,
        scale=inputs.scale,
    )
    if not inputs.problem.return_stats:
        return output, None
    return output, AttentionStats(*row_statistics(scores, steered, visible))


def _to_double(stats: AttentionStats) -> AttentionStats:
    return AttentionStats(*(each.double().cpu() for each in stats))

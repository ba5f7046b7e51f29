"""Splits the problems of a machine into regimes that one backend can serve.

Problems of one kind and one pair of head dims form a family. Along the key lengths a family stays one regime for as
long as some backend is within a tie of the best everywhere; where the winner flips, a new regime begins.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from rls_bench.choose.decision import Decision, decide, is_certainly_slower, weigh
from rls_bench.choose.evidence import Cell, Evidence, Objective
from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Kind

# One backend may cost so much more than the best, on some problem, before its regime is split.
MOST_REGRET = 0.02


def choose(evidence: Evidence, objective: Objective = "latency") -> list[Decision]:
    """A decision for each regime, in order of kind, head dim and length."""
    families: dict[tuple[Kind, int, int], list[Cell]] = {}
    for cell in evidence.cells:
        problem = cell.problem
        families.setdefault((policy_file.kind(problem), problem.head_dim, problem.value_dim), []).append(cell)
    suite = evidence.suites[-1] if evidence.suites else ""
    return [
        decision
        for _, cells in sorted(families.items(), key=lambda item: (item[0][0].title, *item[0][1:]))
        for decision in _split(cells, objective, suite)
    ]


def _split(cells: list[Cell], objective: Objective, suite: str) -> list[Decision]:
    steps = _steps(cells)
    if all(_holds(step, objective) for step in steps):
        return [decide(regime, objective, suite) for regime in _joined(steps, objective)]
    # Of one length batches or heads want backends of their own, and no number of launches would change that.
    shapes: dict[str, list[Cell]] = {}
    for cell in cells:
        shapes.setdefault(_shape(cell), []).append(cell)
    return [
        replace(decide(regime, objective, suite), shape=shape)
        for shape, members in shapes.items()
        for regime in _joined(_steps(members), objective)
    ]


def _steps(cells: list[Cell]) -> list[list[Cell]]:
    """The cells of each key length, from short to long."""

    def key_length(cell: Cell) -> int:
        return cell.problem.key_length

    return [list(step) for _, step in groupby(sorted(cells, key=key_length), key_length)]


def _joined(steps: list[list[Cell]], objective: Objective) -> list[list[Cell]]:
    regimes: list[list[Cell]] = []
    for step in steps:
        if regimes and _holds([*regimes[-1], *step], objective):
            regimes[-1] += step
        else:
            regimes.append(list(step))
    return regimes


def _shape(cell: Cell) -> str:
    problem = cell.problem
    heads = f"{problem.query_heads}" + (f"/{problem.kv_heads}" if problem.kv_heads != problem.query_heads else "")
    return f"B{problem.batch} H{heads}"


def _holds(cells: list[Cell], objective: Objective) -> bool:
    """Whether one backend serves all of ``cells``, for all that the figures can tell."""
    found = weigh(cells, objective)
    if found.backend is None or found.worst_regret is None:
        return False
    allowed = max(MOST_REGRET, *(cell.noise_floor for cell in cells))
    if objective != "latency":
        return found.worst_regret <= allowed
    chosen = found.backend
    return found.worst_regret <= allowed or not any(is_certainly_slower(cell, chosen) for cell in cells)

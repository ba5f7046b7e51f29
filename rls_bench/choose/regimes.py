"""Splits the problems of a machine into regimes that one backend can serve.

Problems of one kind and one pair of head dims form a family. Along the key lengths a family stays one regime for as
long as some backend is within a tie of the best everywhere; where the winner flips, a new regime begins.
"""

from __future__ import annotations

from itertools import groupby

from rls_bench.choose.decision import Decision, decide, weigh
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
    def key_length(cell: Cell) -> int:
        return cell.problem.key_length

    regimes: list[list[Cell]] = []
    for _, same_length in groupby(sorted(cells, key=key_length), key_length):
        step = list(same_length)
        if regimes and _holds(weigh([*regimes[-1], *step], objective)):
            regimes[-1] += step
        else:
            regimes.append(step)
    return [decide(regime, objective, suite) for regime in regimes]


def _holds(joined: Decision) -> bool:
    """Whether one backend serves all of ``joined``."""
    if joined.worst_regret is None:
        return False
    tie = max(cell.noise_floor for cell in joined.cells)
    return joined.worst_regret <= max(MOST_REGRET, tie)

"""A candidate's latency against the good one's: both in one run, taking turns, as ``rls-bench ab`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rls_bench.ab import trial
from rls_bench.ab.trees import Tree
from rls_bench.bisect.search import Measure, Measured, Unbuildable
from rls_bench.compare.verdict import Comparison
from rls_bench.errors import RlsBenchError
from rls_bench.problems.problem import Problem
from rls_bench.runner.plan import Event

_Run = Callable[[Callable[[Event], None]], Comparison]


def measure(
    trees: Callable[[str], Tree],
    good: str,
    problem: Problem,
    backend: str,
    out: Path,
    *,
    budget_seconds: float = 120.0,
    seed: int = 0,
    shown: Callable[[_Run], Comparison] = lambda run: run(lambda event: None),
) -> Measure:
    """How candidates are measured; ``trees`` makes the sources of one, once. Records lie in the folder ``out``.

    ``shown`` carries out a run and hands it what is told of its progress.
    """
    made: dict[str, Tree] = {}
    count = 0

    def tree(candidate: str) -> Tree:
        if candidate not in made:
            try:
                made[candidate] = trees(candidate)
            except RlsBenchError as error:
                raise Unbuildable(str(error)) from error
        return made[candidate]

    def run(candidate: str, threshold: float, effort: float) -> Measured:
        nonlocal count
        count += 1
        sides, where = (tree(good), tree(candidate)), out / f"{count:02d}-{candidate[:12]}"
        seconds = budget_seconds * effort
        return read(
            shown(
                lambda progress: trial.run(
                    *sides,
                    [problem],
                    [backend],
                    where,
                    threshold=threshold,
                    budget_seconds=seconds,
                    seed=seed,
                    progress=progress,
                )
            )
        )

    return run


def read(comparison: Comparison) -> Measured:
    """What one run said of its only cell. Raises Unbuildable where it said nothing."""
    for row in comparison.rows:
        if row.ratio is not None and row.verdict in ("SLOWER", "FASTER", "SAME", "AMBIGUOUS"):
            return Measured(row.verdict, row.ratio, row.low, row.high)
    reasons = [f"{row.verdict.lower()}: {row.reason}" for row in comparison.rows]
    raise Unbuildable("; ".join(reasons) or "neither side was timed")

"""The figures that docs/how-we-measure.md states, taken anew: false alarms, a planted slowdown, overhead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rls_bench.problems import suites
from rls_bench.problems.problem import Problem
from rls_bench.records.statistics import ratio_interval
from rls_bench.runner import Plan, run

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
REAL = ["sdpa-cpu", "sdpa-math", "unsteered"]


def is_different(base: list[list[float]], new: list[list[float]], floor: float) -> bool:
    """The verdict's rule: the 99 % interval leaves 1 out, and the difference is above the noise floor."""
    ratio = ratio_interval(base, new, 0.99)
    return not ratio.low <= 1 <= ratio.high and abs(ratio.median - 1) > floor


@pytest.mark.quiet
@pytest.mark.timeout(1800)
def test_two_hundred_pairs_of_identical_code(tmp_path: Path) -> None:
    """Pairs resampled from the launches of a real run: three launches a side, samples drawn anew within each."""
    problems = [replace(problem, name="") for problem in suites.get("smoke")[:2]]
    plan = Plan(problems, REAL, launches=10, budget_seconds=240, target_interval=1e-9, race=False, questions=("warm",))
    records = [record for record in run(plan, tmp_path / "results.jsonl").records if record.status == "ok"]
    rng = np.random.default_rng(0)

    def side(launches: list[list[float]]) -> list[list[float]]:
        chosen = rng.choice(len(launches), 3, replace=False)
        return [list(rng.choice(launches[i], len(launches[i]))) for i in chosen]

    alarms = 0
    for number in range(200):
        launches = records[number % len(records)].samples_ns["warm"]
        one, two = side(launches), side(launches)
        alarms += is_different(one, two, floor=0.0)
    real = [
        is_different(record.samples_ns["warm"], twin.samples_ns["warm"], floor=0.0)
        for record in records
        for twin in records
        if twin.label == record.label + "#2" and twin.problem == record.problem
    ]
    print(f"{alarms} false alarms in 200 resampled pairs; {sum(real)} in {len(real)} real pairs of ten launches")
    assert alarms <= 4


@pytest.mark.quiet
@pytest.mark.timeout(2400)
def test_a_planted_slowdown_of_five_percent(tmp_path: Path) -> None:
    names = ["fakes:STEADY", "fakes:STEADY_TOO", "fakes:FIVE_PERCENT_SLOWER"]
    found = flagged = 0
    for number in range(20):
        plan = Plan(
            [PROBLEM], names, seed=number, launches=5, budget_seconds=20, race=False, questions=("warm",), aa=True
        )
        summary = run(plan, tmp_path / f"{number}.jsonl")
        launches = {record.label: record.samples_ns.get("warm", []) for record in summary.records}
        floor = summary.noise_floor or 0.0
        found += is_different(launches["fakes:STEADY"], launches["fakes:FIVE_PERCENT_SLOWER"], floor)
        flagged += is_different(launches["fakes:STEADY"], launches["fakes:STEADY_TOO"], floor)
    print(f"found in {found} of 20 runs; the unchanged one flagged in {flagged}")
    assert found >= 19
    assert flagged <= 1


@pytest.mark.quiet
@pytest.mark.timeout(3600)
def test_the_time_that_is_not_spent_in_calls(tmp_path: Path) -> None:
    """The whole standard suite, a quarter of an hour on two cores of AVX2."""
    effort = run(Plan(suites.get("standard"), REAL, budget_seconds=600), tmp_path / "results.jsonl").effort
    print(f"{effort.overhead:.1%} of {effort.wall - effort.compile:.0f} s outside calls: {effort}")
    assert effort.calls > 0
    assert effort.overhead <= 0.15

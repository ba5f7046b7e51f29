"""A few problems stand for all: their weights keep the time, whatever law a machine's times follow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem
from rls_bench.traffic.grouping import family, representatives

# Times of a call in seconds, none of them the estimate's: overheads, rates and a cache that overflows.
LAWS: dict[str, Callable[[Problem], float]] = {
    "only being called": lambda problem: 40e-6,
    "no overhead": lambda problem: problem.flops / 5e10 + problem.input_bytes / 2e10,
    "a quick machine": lambda problem: 8e-6 + max(problem.flops / 1e12, problem.input_bytes / 1e11),
    "a slow one": lambda problem: 60e-6 + problem.flops / 1e10,
    "a cache": lambda problem: 20e-6 + problem.input_bytes / (4e10 if problem.input_bytes < 1 << 20 else 1.2e10),
}


def drawn(seed: int, number: int = 60) -> dict[Problem, float]:
    """Calls of ``number`` problems: chat of two models' layers, decoding at several batches, and prompts."""
    rng = np.random.default_rng(seed)
    calls: dict[Problem, float] = {}
    while len(calls) < number:
        heads, dim = ("9/3", 64) if rng.random() < 0.7 else ("16/4", 64)
        length = int(np.clip(rng.lognormal(6.0, 0.8), 16, 4096))
        if rng.random() < 0.6:
            problem = parse(f"B{rng.choice([1, 1, 1, 4])} H{heads} Lq1 Lk{length} D{dim} fp32")
            calls[problem] = float(rng.integers(200, 4000))
        else:
            calls[parse(f"H{heads} L{length} D{dim} fp32 causal")] = float(rng.integers(1, 40))
    return calls


def off_by(calls: dict[Problem, float], law: Callable[[Problem], float]) -> float:
    wanted = math.fsum(number * law(problem) for problem, number in calls.items())
    return math.fsum(group.weight * law(group.problem) for group in representatives(calls)) / wanted - 1


@pytest.mark.parametrize("law", LAWS)
def test_twelve_of_sixty_tell_the_time_of_all(law: str) -> None:
    found = [off_by(drawn(seed), LAWS[law]) for seed in range(6)]
    assert math.sqrt(np.mean(np.square(found))) <= 0.05
    assert max(map(abs, found)) <= 0.1


def test_weights_keep_calls_bytes_and_flops_and_members_are_all() -> None:
    calls = drawn(1)
    groups = representatives(calls)
    assert len(groups) == 12
    members = [problem.title for group in groups for problem in group.members]
    assert sorted(members) == sorted(problem.title for problem in calls)
    assert all(group.problem in group.members for group in groups)
    for figure in (lambda _: 1, lambda problem: problem.input_bytes, lambda problem: problem.flops):
        wanted = math.fsum(number * figure(problem) for problem, number in calls.items())
        assert math.fsum(group.weight * figure(group.problem) for group in groups) == pytest.approx(wanted, rel=0.02)
    assert [group.seconds for group in groups] == sorted((group.seconds for group in groups), reverse=True)


def test_few_problems_stand_for_themselves() -> None:
    calls = {parse("H9/3 Lq1 Lk64 D64"): 3.0, parse("H9/3 L64 D64 causal"): 1.0, parse("H1 L1 D8"): 0.0}
    groups = representatives(calls)
    assert {group.problem: group.weight for group in groups} == pytest.approx(
        {problem: n for problem, n in calls.items() if n}
    )
    assert all(group.error == 0 for group in groups)


def test_the_ends_of_a_family_stand_for_themselves() -> None:
    calls = {parse(f"H9/3 Lq1 Lk{length} D64"): 10.0 for length in range(100, 1000)}
    kept = {group.problem.key_length for group in representatives(calls) if len(group.members) == 1}
    assert {100, 999} <= kept


def test_kinds_and_heads_are_kept_apart_while_there_is_room() -> None:
    calls = {
        parse(f"H{heads} Lq1 Lk{length} D64 {words}"): 5.0
        for heads in ("9/3", "32/8")
        for words in ("fp32", "bf16", "fp32 padded")
        for length in range(64, 4096, 256)
    }
    for group in representatives(calls):
        assert len({family(problem) for problem in group.members}) == 1


def test_a_group_says_how_far_off_it_is() -> None:
    calls = {parse(f"H9/3 L{length} D64 causal"): 1.0 for length in (64, 128, 4096)}
    (group,) = representatives(calls, most=1)
    assert group.error > 0.1
    with pytest.raises(ValueError, match="most: wanted 1 or more; got 0"):
        representatives(calls, most=0)
    with pytest.raises(ValueError, match="calls: wanted at least one"):
        representatives({parse("H9/3 L64 D64"): 0.0})


def test_thousands_of_problems_are_grouped_too() -> None:
    calls = {parse(f"B{batch} H9/3 Lq1 Lk{length} D64"): 1.0 for batch in range(1, 6) for length in range(1, 1001)}
    groups = representatives(calls)
    assert len(groups) == 12
    assert sum(group.calls for group in groups) == 5_000


@pytest.mark.quiet
def test_twelve_of_sixty_tell_what_this_machine_takes() -> None:
    """The bar's own figure: all sixty timed in turns, against what their twelve say."""
    from rls_bench.backends import registry
    from rls_bench.problems.draw import draw

    calls = drawn(0)
    for name in ("sdpa-cpu", "cpu"):
        backend = registry.get(name)
        ready = {problem: backend.prepare(draw(problem)) for problem in calls}
        samples: dict[Problem, list[int]] = {problem: [] for problem in calls}
        rounds = np.random.default_rng(0)
        for _ in range(25):
            for place in rounds.permutation(len(ready)):
                problem, call = list(ready.items())[place]
                call()
                began = time.perf_counter_ns()
                call()
                samples[problem].append(time.perf_counter_ns() - began)
        # What others' work adds is no part of a problem's time.
        least = {problem: float(np.quantile(found, 0.1)) for problem, found in samples.items()}
        off = off_by(calls, least.__getitem__)
        print(f"\n{name}: 12 of 60 problems tell the time of all to {off:+.1%}")
        assert abs(off) <= 0.05

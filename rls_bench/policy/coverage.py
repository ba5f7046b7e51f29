"""How much of a workload a policy speaks of, and what to measure so that it speaks of more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Kind, Policy, Rule
from rls_bench.policy.stretches import Stretches, advise, stretches
from rls_bench.problems.problem import Problem
from rls_bench.traffic.estimate import seconds
from rls_bench.traffic.grouping import family

# From so many lengths of one shape on, asking where the advice changes is cheaper than asking of each.
_MANY_LENGTHS = 60


@dataclass(frozen=True)
class Coverage:
    """Calls by what the policy says of them: a choice, of measured problems or between them; nothing sure; nothing."""

    measured: Mapping[Problem, float]
    between: Mapping[Problem, float]
    abstained: Mapping[Problem, float]
    outside: Mapping[Problem, float]

    def share(self, part: Mapping[Problem, float]) -> tuple[float, float]:
        """Of all calls, and of their estimated time."""
        every = [self.measured, self.between, self.abstained, self.outside]
        calls, times = _calls(part), _seconds(part)
        return calls / math.fsum(map(_calls, every)), times / math.fsum(map(_seconds, every))


def coverage(policy: Policy, calls: Mapping[Problem, float]) -> Coverage:
    """What ``policy`` says of each problem in ``calls``, whatever machine this is."""
    rules: dict[Kind, list[Rule]] = {}
    for rule in policy.rules:
        rules.setdefault(rule.kind, []).append(rule)
    # Of one kind, too: a short cache makes a decode a prefill.
    shapes: dict[tuple[Kind, Problem], list[Problem]] = {}
    for problem in calls:
        queries = 1 if problem.is_square else problem.query_length
        shape = replace(problem, key_length=1, query_length=queries, name="")
        shapes.setdefault((policy_file.kind(problem), shape), []).append(problem)
    found = Coverage({}, {}, {}, {})
    for (kind, _), members in shapes.items():
        known: Stretches | None = None
        own = rules.get(kind, [])
        if own and len(members) >= _MANY_LENGTHS:
            known = stretches(own, policy_file.point(members[0]), is_square=members[0].is_square)
        for problem in members:
            _part(found, own, known, problem)[problem] = calls[problem]  # type: ignore[index]
    return found


def _part(found: Coverage, rules: list[Rule], known: Stretches | None, problem: Problem) -> Mapping[Problem, float]:
    point = policy_file.point(problem)
    advice = known.at(problem.key_length) if known else advise(rules, point)
    if advice is None:
        return found.outside
    if not advice.backends:
        return found.abstained
    return found.measured if any(point in rule.measured for rule in rules) else found.between


def to_measure(outside: Mapping[Problem, float], most: int = 12) -> list[Problem]:
    """Problems that would cover the most of ``outside``: of each family the shortest, the longest, the weightiest.

    A policy answers between measured lengths of a family; families that take the most time come first.
    """
    families: dict[Problem, list[Problem]] = {}
    for problem in outside:
        families.setdefault(family(problem), []).append(problem)
    times = {name: math.fsum(outside[one] * seconds(one) for one in members) for name, members in families.items()}
    wanted: list[Problem] = []
    for name in sorted(families, key=lambda name: -times[name]):
        members = sorted(families[name], key=lambda one: (one.key_length, one.query_length))
        weightiest = max(members, key=lambda one: outside[one] * seconds(one))
        new = list(dict.fromkeys([members[0], weightiest, members[-1]]))
        if len(wanted) + len(new) <= most:
            wanted += new
    return wanted


def _calls(part: Mapping[Problem, float]) -> float:
    return math.fsum(part.values())


def _seconds(part: Mapping[Problem, float]) -> float:
    return math.fsum(number * seconds(problem) for problem, number in part.items())

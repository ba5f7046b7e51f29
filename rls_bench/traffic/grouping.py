"""A few problems that stand for all: measured in their place, with weights that keep what all of them ask of a machine.

Problems are grouped by their sizes, on the scale of logarithms, so that the spread within groups costs least (Ward,
Hierarchical grouping to optimize an objective function, 1963), each counting by its share of estimated time. A group's
representative is the member whose estimated time is nearest to the members' mean. It counts as often as the members do,
changed by as little as makes the representatives of one kind of problem ask as many calls, bytes and FLOPs as all of
that kind (Deville and Särndal, Calibration estimators in survey sampling, 1992): then a machine's time for all is told
rightly whatever it takes for each of the three. The shortest and the longest of each family stand for themselves where
there is room: a policy answers between measured lengths alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from rls_bench.problems.problem import Problem
from rls_bench.traffic.counting import rounded
from rls_bench.traffic.estimate import seconds

MOST = 12
# What is grouped pair by pair; more are rounded to steps of their lengths first.
_MOST_MEMBERS = 400
# A family whose share of time is less has no ends of its own.
_LEAST_SHARE = 0.02
# One in so many representatives may be an end.
_END_SHARE = 6
# Octaves that lie between problems which differ in kind, or in heads and head dim for each octave of those.
_OF_KIND = 40.0
_OF_HEADS = 8.0
# How much more a total that is kept counts than a weight that isn't changed, and how little of it may be left.
_KEPT = 100.0
_LEAST_FACTOR = 0.1


@dataclass(frozen=True)
class Group:
    """Problems that ``problem`` stands for: ``members`` and their calls; it counts as ``weight`` calls."""

    problem: Problem
    weight: float
    members: Mapping[Problem, float]

    @property
    def calls(self) -> float:
        """Of all members."""
        return math.fsum(self.members.values())

    @property
    def seconds(self) -> float:
        """Estimated, of all members."""
        return math.fsum(number * seconds(problem) for problem, number in self.members.items())

    @property
    def error(self) -> float:
        """How far the members' estimated times lie from the representative's, relative, on average over calls."""
        own = seconds(self.problem)
        spread = math.fsum(number * abs(seconds(problem) - own) for problem, number in self.members.items())
        return spread / (own * self.calls)


def representatives(calls: Mapping[Problem, float], most: int = MOST) -> list[Group]:
    """At most ``most`` groups of ``calls``, the one that takes the most time first.

    Raises ValueError where there are no calls, or ``most`` is less than 1.
    """
    if most < 1:
        raise ValueError(f"most: wanted 1 or more; got {most}")
    counted = {problem: number for problem, number in calls.items() if number > 0}
    if not counted:
        raise ValueError("calls: wanted at least one; got none")
    times = {problem: number * seconds(problem) for problem, number in counted.items()}
    ends = _ends(times, most // _END_SHARE) if len(times) > most else []
    pools = _ward(_pooled({problem: time for problem, time in times.items() if problem not in ends}), most - len(ends))
    members = [*((problem,) for problem in ends), *(pool.members for pool in pools)]
    found = _calibrated([_group({problem: counted[problem] for problem in alike}) for alike in members])
    return sorted(found, key=lambda group: (-group.seconds, group.problem.title))


def family(problem: Problem) -> Problem:
    """What problems share that differ in lengths alone; prefills, of whole prompts or of chunks, are one family."""
    queries = 1024 if problem.is_square or problem.query_length > 16 else problem.query_length
    return replace(problem, key_length=1024, query_length=queries, name="", seed=0)


def kind(problem: Problem) -> Problem:
    """What problems share that differ in lengths and batch alone."""
    return replace(family(problem), batch=1)


def _group(members: Mapping[Problem, float]) -> Group:
    calls = math.fsum(members.values())
    mean = math.fsum(number * seconds(problem) for problem, number in members.items()) / calls
    nearest = min(members, key=lambda problem: (abs(math.log(seconds(problem) / mean)), problem.title))
    return Group(nearest, calls, members)


def _calibrated(groups: Sequence[Group]) -> list[Group]:
    """``groups`` with weights that keep the calls, bytes and FLOPs of each kind, as far as so few can."""
    kinds: dict[Problem, list[Group]] = {}
    for group in groups:
        kinds.setdefault(kind(group.problem), []).append(group)
    return [group for alike in kinds.values() for group in _calibrated_kind(alike)]


def _calibrated_kind(groups: Sequence[Group]) -> list[Group]:
    wanted = sum(number * _asked(problem) for group in groups for problem, number in group.members.items())
    asked = np.array([_asked(group.problem) for group in groups]) / wanted
    before = np.array([group.calls for group in groups])
    # Keeping the totals comes first, and as little change as does it second; no group may count for nothing.
    rows = np.vstack([_KEPT * (asked * before[:, None]).T, np.eye(len(groups))])
    ends = np.concatenate([np.full(asked.shape[1], _KEPT), np.ones(len(groups))])
    factors = lsq_linear(rows, ends, bounds=(_LEAST_FACTOR, np.inf)).x
    weights = before * factors
    return [replace(group, weight=float(weight)) for group, weight in zip(groups, weights, strict=True)]


def _asked(problem: Problem) -> NDArray[np.float64]:
    """Calls, bytes and FLOPs of one call."""
    return np.array([1.0, problem.input_bytes, problem.flops])


@dataclass(frozen=True)
class _Pool:
    """Problems that are grouped as one: the place of the first stands for all, ``seconds`` is their estimated time."""

    members: tuple[Problem, ...]
    seconds: float


def _pooled(times: Mapping[Problem, float]) -> list[_Pool]:
    """Each problem alone or, once there are too many to compare each pair, with those of nearly its lengths."""
    if len(times) <= _MOST_MEMBERS:
        return [_Pool((problem,), time) for problem, time in times.items()]
    alike: dict[Problem, list[Problem]] = {}
    for problem in times:
        alike.setdefault(rounded(problem), []).append(problem)
    pools = [_Pool(tuple(members), math.fsum(map(times.__getitem__, members))) for members in alike.values()]
    pools.sort(key=lambda pool: -pool.seconds)
    if len(pools) <= _MOST_MEMBERS:
        return pools
    # What takes the least time joins the nearest of those that take more.
    places = _places([pool.members[0] for pool in pools])
    kept = pools[:_MOST_MEMBERS]
    for pool, place in zip(pools[_MOST_MEMBERS:], places[_MOST_MEMBERS:], strict=True):
        index = int(((places[:_MOST_MEMBERS] - place) ** 2).sum(axis=1).argmin())
        kept[index] = _joined(kept[index], pool)
    return kept


def _joined(one: _Pool, other: _Pool) -> _Pool:
    return _Pool(one.members + other.members, one.seconds + other.seconds)


def _ends(times: Mapping[Problem, float], most: int) -> list[Problem]:
    """The shortest and the longest of the families that take the most time, ``most`` problems in all at most."""
    families: dict[Problem, list[Problem]] = {}
    for problem in times:
        families.setdefault(family(problem), []).append(problem)
    shares = {name: math.fsum(map(times.__getitem__, found)) for name, found in families.items()}
    least = _LEAST_SHARE * math.fsum(shares.values())
    ends: list[Problem] = []
    for name in sorted(families, key=lambda name: -shares[name]):
        if len(families[name]) >= 3 and len(ends) + 2 <= most and shares[name] >= least:
            ordered = sorted(families[name], key=lambda problem: (problem.key_length, problem.query_length))
            ends += [ordered[0], ordered[-1]]
    return ends


def _ward(pools: Sequence[_Pool], most: int) -> list[_Pool]:
    """``pools`` merged, two at a time, until ``most`` are left."""
    groups: dict[int, _Pool] = dict(enumerate(pools))
    centres = _places([pool.members[0] for pool in pools])
    masses = np.array([pool.seconds for pool in pools])
    costs = _costs(centres, masses)
    while len(groups) > most:
        one, other = divmod(int(costs.argmin()), len(pools))
        groups[one] = _joined(groups[one], groups.pop(other))
        centres[one] = (masses[one] * centres[one] + masses[other] * centres[other]) / (masses[one] + masses[other])
        masses[one] += masses[other]
        costs[other, :] = costs[:, other] = np.inf
        others = [index for index in groups if index != one]
        costs[one, others] = costs[others, one] = _spread(centres[one], centres[others], masses[one], masses[others])
    return list(groups.values())


def _costs(centres: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """What merging each pair would add to the spread within groups; infinite for one with itself."""
    found = _spread(centres[:, None], centres[None], masses[:, None], masses[None])
    np.fill_diagonal(found, np.inf)
    return found


def _spread(
    one: NDArray[np.float64], other: NDArray[np.float64], mass: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ward's cost of merging groups at ``one`` and ``other`` [..., coordinates]."""
    squared: NDArray[np.float64] = ((one - other) ** 2).sum(axis=-1)
    return mass * others / (mass + others) * squared


def _places(problems: Sequence[Problem]) -> NDArray[np.float64]:
    """Where problems lie: octaves of batch and lengths, of heads and dims more, and far apart by kind."""
    sizes = np.log2([[one.batch, one.query_length, one.key_length] for one in problems])
    heads = _OF_HEADS * np.log2([[one.query_heads, one.kv_heads, one.head_dim, one.value_dim] for one in problems])
    kinds = [replace(family(one), batch=1, query_heads=1, kv_heads=1, head_dim=1, value_dim=1) for one in problems]
    names = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    return np.hstack([sizes, heads, _OF_KIND * np.eye(len(names))[[names[kind] for kind in kinds]]])

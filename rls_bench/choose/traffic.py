"""What a workload would take: with today's backend, with each alone, by the policy, and by the best of each problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rls_bench.choose.decision import Decision
from rls_bench.choose.evidence import Cell, Evidence
from rls_bench.problems.problem import Problem
from rls_bench.problems.workload import Workload
from rls_bench.records.statistics import Estimate
from rls_bench.traffic.estimate import seconds


@dataclass(frozen=True)
class Traffic:
    """The evidence on a workload's problems: ``calls`` of each for every 1,000 of its unit; ``missing`` has none."""

    evidence: Evidence
    calls: Mapping[Problem, float]
    missing: tuple[Problem, ...]


# One cell's part of a total: calls and the log latency of one, by backend and problem.
_Parts = Mapping[tuple[str, Problem], tuple[float, Estimate]]


@dataclass(frozen=True)
class Total:
    """The time of all calls, a log of nanoseconds; None where ``lacks``, shares of estimated time, says why not."""

    name: str
    time: Estimate | None
    lacks: Mapping[str, float] = field(default_factory=dict)
    # Share of estimated time for which the policy has no choice, so that today's backend is taken on.
    abstained: float = 0.0
    parts: _Parts = field(default_factory=dict, repr=False)

    def over(self, base: Total) -> Estimate | None:
        """This one's time over another's; what both have in common cancels."""
        if self.time is None or base.time is None:
            return None
        shares = {name: share for name, (share, _) in _shares(self.parts).items()}
        for name, (share, _) in _shares(base.parts).items():
            shares[name] = shares.get(name, 0.0) - share
        every = {**self.parts, **base.parts}
        return _spread(self.time.mean - base.time.mean, {name: (shares[name], every[name][1]) for name in shares})


def on(evidence: Evidence, workload: Workload) -> Traffic:
    """``evidence`` on the problems of ``workload`` alone, each weighing as much as it takes of the time."""
    calls: dict[Problem, float] = {}
    for one in workload.problems:
        problem = replace(one.problem, name="", seed=0)
        calls[problem] = calls.get(problem, 0.0) + one.weight
    known = {cell.problem: cell for cell in evidence.cells if cell.problem in calls}
    cells = [replace(cell, weight=calls[problem] * _least_ns(cell)) for problem, cell in known.items()]
    missing = tuple(problem for problem in calls if problem not in known)
    return Traffic(replace(evidence, cells=cells), calls, missing)


def totals(traffic: Traffic, decisions: Sequence[Decision], today: str = "") -> list[Total]:
    """Today's backend, each single one from quick to slow, the policy, and the best of each problem.

    Where the policy abstains today's backend is taken on, for that changes nothing.
    """
    chosen = {cell.problem: found.backend for found in decisions for cell in found.cells}
    names = sorted({name for cell in traffic.evidence.cells for name in (*cell.candidates, *cell.refused)})
    single = [_total(name, traffic, lambda cell, name=name: name) for name in names if name != today]  # type: ignore[misc]
    single.sort(key=lambda total: (math.inf if total.time is None else total.time.mean, total.name))
    found = [_total(today, traffic, lambda cell: today)] if today else []
    policy = _total("policy", traffic, lambda cell: chosen.get(cell.problem) or today)
    estimated = {cell.problem: traffic.calls[cell.problem] * seconds(cell.problem) for cell in traffic.evidence.cells}
    without = math.fsum(time for problem, time in estimated.items() if not chosen.get(problem))
    policy = replace(policy, abstained=without / math.fsum(estimated.values()))
    return [*found, *single, policy, _total("best of each", traffic, _best)]


def _total(name: str, traffic: Traffic, pick: Callable[[Cell], str]) -> Total:
    parts: dict[tuple[str, Problem], tuple[float, Estimate]] = {}
    lacks: dict[str, float] = {}
    # Estimated, since what nobody can do has no time.
    shares = {cell.problem: traffic.calls[cell.problem] * seconds(cell.problem) for cell in traffic.evidence.cells}
    every = math.fsum(shares.values())
    for cell in traffic.evidence.cells:
        taken = pick(cell)
        if (candidate := cell.candidates.get(taken)) is not None:
            parts[taken, cell.problem] = traffic.calls[cell.problem], candidate.latency
        else:
            why = cell.refused.get(taken, "not measured") if taken else "abstains"
            lacks[why] = lacks.get(why, 0.0) + shares[cell.problem] / every
    if lacks or not parts:
        return Total(name, None, lacks)
    mean = math.log(math.fsum(calls * math.exp(latency.mean) for calls, latency in parts.values()))
    return Total(name, _spread(mean, _shares(parts)), parts=parts)


def _shares(parts: _Parts) -> dict[tuple[str, Problem], tuple[float, Estimate]]:
    times = {name: calls * math.exp(latency.mean) for name, (calls, latency) in parts.items()}
    every = math.fsum(times.values())
    return {name: (times[name] / every, latency) for name, (_, latency) in parts.items()}


def _spread(mean: float, shares: Mapping[tuple[str, Problem], tuple[float, Estimate]]) -> Estimate:
    """The estimate of a log total, to first order in its parts.

    What moves a launch of one backend moves all its problems, so their deviations are added as they are; those of
    several backends, which run in processes of their own, as squares.
    """
    by_backend: dict[str, float] = {}
    counted = {name: part for name, part in shares.items() if abs(part[0]) > 1e-12}
    for (backend, _), (share, latency) in counted.items():
        by_backend[backend] = by_backend.get(backend, 0.0) + abs(share) * math.sqrt(latency.variance)
    return Estimate(
        mean,
        math.fsum(deviation**2 for deviation in by_backend.values()),
        min((latency.freedom for _, latency in counted.values()), default=1.0),
        math.fsum(abs(share) * latency.blur for share, latency in counted.values()),
    )


def _least_ns(cell: Cell) -> float:
    best = _best(cell)
    return cell.candidates[best].latency_ns if best else 0.0


def _best(cell: Cell) -> str:
    return min(cell.candidates, key=lambda name: cell.candidates[name].latency_ns, default="")

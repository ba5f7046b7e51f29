"""Which machines of a kind do not give the results that their siblings give: A/A across machines.

A sibling is a machine of the same kind with the same versions. Two of them differ where the latency of a cell of one
lies beyond the other's by more than the threshold and the noise floor of both for certain, all cells and pairs allowed
for (Bonferroni), or where one is broken and the other isn't. A machine that differs from most of its siblings is a
suspect. Of two that differ either may be the one, and both are named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from rls_bench.records.record import Question, Record
from rls_bench.records.standing import entry_of, standing
from rls_bench.records.statistics import Estimate, estimates

# Two good machines of a kind may differ by a few per cent for good.
THRESHOLD = 0.05
# Chance that any machine of a kind is called a suspect where none is.
_FALSE_ALARMS = 0.01
_BROKEN = ("wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory")

_Cell = tuple[str, str]


@dataclass(frozen=True)
class Suspect:
    """A machine that isn't believed, and why."""

    machine: str
    reason: str


@dataclass
class _Told:
    """What each machine says of one cell."""

    title: str
    states: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, Estimate] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)


def suspects(records: Mapping[str, Sequence[Record]], threshold: float = THRESHOLD) -> list[Suspect]:
    """The suspects among siblings, whose ``records`` are given by machine; none where there is but one."""
    cells = _cells(records)
    pairs = list(combinations(sorted(records), 2))
    tests = sum(one in cell.latencies and other in cell.latencies for cell in cells for one, other in pairs)
    compared: Counter[str] = Counter()
    apart: dict[str, dict[str, list[str]]] = {machine: {} for machine in records}
    for one, other in pairs:
        shared = [cell for cell in cells if one in cell.states and other in cell.states]
        compared.update((one, other) if shared else ())
        for cell in shared:
            for name, sibling, reason in _differences(cell, one, other, threshold, max(tests, 1)):
                apart[name].setdefault(sibling, []).append(reason)
    odd = {machine: siblings for machine, siblings in apart.items() if 2 * len(siblings) > compared[machine]}
    return [Suspect(machine, _reason(siblings, odd.keys() == apart.keys())) for machine, siblings in odd.items()]


def _reason(siblings: Mapping[str, Sequence[str]], is_everyone: bool) -> str:
    """The first difference, how many more there are, and where nobody can say which of two is right, that."""
    reasons = [reason for each in siblings.values() for reason in each]
    words = reasons[0] + f", and {len(reasons) - 1} differences more" * (len(reasons) > 1)
    return words + "; which of them is right another machine would tell" * is_everyone


def _cells(records: Mapping[str, Sequence[Record]]) -> list[_Told]:
    by_cell: dict[tuple[_Cell, str], list[Record]] = {}
    for machine, entries in records.items():
        for entry in entries:
            by_cell.setdefault(((entry.problem.key, entry.backend), machine), []).append(entry)
    cells: dict[_Cell, _Told] = {}
    units: dict[tuple[_Cell, str], list[float]] = {}
    blurs, groups = {}, {}
    for (key, machine), entries in by_cell.items():
        cell = cells.setdefault(key, _Told(f"{entries[0].backend} on {entries[0].problem.title}"))
        stands = standing([entry_of(entry) for entry in entries])
        cell.states[machine] = stands.status
        question: Question | None = next(iter(stands.evidence), None)
        if question:
            evidence = stands.evidence[question]
            units[key, machine], blurs[key, machine] = evidence.units, evidence.blur
            groups[key, machine] = question, evidence.launches == len(evidence.units)
            cell.floors[machine] = evidence.floor
    for (key, machine), estimate in estimates(units, blurs, groups).items():
        cells[key].latencies[machine] = estimate
    return [*cells.values()]


def _differences(cell: _Told, one: str, other: str, threshold: float, tests: int) -> Iterator[tuple[str, str, str]]:
    """Where two machines differ in a cell: each, the other, and how, from the view of the one."""
    states = cell.states[one], cell.states[other]
    if (states[0] in _BROKEN) != (states[1] in _BROKEN):
        yield one, other, f"{cell.title} is {states[0]}, and {states[1]} on {other}"
        yield other, one, f"{cell.title} is {states[1]}, and {states[0]} on {one}"
    if one not in cell.latencies or other not in cell.latencies:
        return
    ratio = cell.latencies[one].over(cell.latencies[other])
    margin = math.log1p(max(threshold, cell.floors[one], cell.floors[other]))
    away = replace(ratio, mean=abs(ratio.mean))
    # To either side.
    if 2 * away.chance_above(margin) < _FALSE_ALARMS / tests:
        yield one, other, f"{cell.title} takes {math.exp(ratio.mean):.2f} × what it takes on {other}"
        yield other, one, f"{cell.title} takes {math.exp(-ratio.mean):.2f} × what it takes on {one}"

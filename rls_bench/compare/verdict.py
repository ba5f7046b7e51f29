"""Judges every cell of two sides: FASTER, SLOWER, SAME, AMBIGUOUS, NEW, GONE or BROKEN.

A cell is called faster or slower only where three things hold: its interval lies wholly beyond the threshold, its
estimate beyond the noise floor of both runs, and the difference is significant with all cells judged together. It is
called the same only where its interval lies wholly within the threshold. All else is ambiguous, and says what would
settle it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rls_bench.compare.notes import HARDWARE, differences, notes
from rls_bench.compare.ratios import FEWEST_LAUNCHES, ratios
from rls_bench.compare.sources import Cell, Key, Source
from rls_bench.errors import RecordError
from rls_bench.records.record import Question

Verdict = Literal["BROKEN", "SLOWER", "AMBIGUOUS", "GONE", "NEW", "FASTER", "SAME"]
# Worst first: the order of every table.
ORDER: tuple[Verdict, ...] = ("BROKEN", "SLOWER", "AMBIGUOUS", "GONE", "NEW", "FASTER", "SAME")

# More launches than this nobody will run to settle one cell.
MOST_LAUNCHES = 200

_BROKEN = ("wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory")


class Row(NamedTuple):
    """One cell's verdict. ``ratio`` is new / base, above 1 is slower, with its 90 % interval; times are nanoseconds."""

    verdict: Verdict
    problem: str
    backend: str
    question: str
    machine: str
    reason: str = ""
    base_ns: float | None = None
    new_ns: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    base_launches: int = 0
    new_launches: int = 0
    noise_floor: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Every cell of two sides, worst first. ``threshold`` is relative: 0.03 is 3 %."""

    base: Source
    new: Source
    threshold: float
    across_machines: bool
    rows: list[Row]
    notes: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """How many cells got each verdict, worst first; verdicts that nobody got are left out."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in ORDER if counted[verdict]}

    @property
    def exit_code(self) -> int:
        """1 where a cell is slower or broken, 3 where none is but some are ambiguous, else 0."""
        verdicts = self.counts.keys()
        if verdicts & {"SLOWER", "BROKEN"}:
            return 1
        return 3 if "AMBIGUOUS" in verdicts else 0


class _Pair(NamedTuple):
    """A cell with latency on both sides, for one question; launches are log medians."""

    key: Key
    title: str
    question: Question
    base: list[float]
    new: list[float]
    noise_floor: float


def compare(base: Source, new: Source, *, threshold: float = 0.03, across_machines: bool = False) -> Comparison:
    """Judge every cell of ``new`` against ``base``; both must have been loaded with the same ``across_machines``.

    Raises ValueError for a threshold outside (0, 1) and RecordError where the two share no machine or no cell.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: wanted a share between 0 and 1, such as 0.03; got {threshold}")
    _check_machines(base, new, across_machines)
    if not base.cells.keys() & new.cells.keys():
        raise RecordError(f"{base.path} and {new.path} share no cell: wanted the same problems on both sides")
    rows: list[Row] = []
    pairs: list[_Pair] = []
    unjudged = 0
    # Dictionaries keep the order of the files, sets would not.
    for key in {**base.cells, **new.cells}:
        found, measured = _match(key, base.cells.get(key), new.cells.get(key))
        rows += found
        pairs += measured
        unjudged += not found and not measured
    judged = _judge(pairs, threshold)
    rows = sorted(rows + judged, key=lambda row: (ORDER.index(row.verdict), row.problem, row.backend, row.question))
    shifts = [math.log(row.ratio) for row in judged if row.ratio]
    return Comparison(base, new, threshold, across_machines, rows, notes(base, new, shifts, unjudged))


def _check_machines(base: Source, new: Source, across_machines: bool) -> None:
    if across_machines:
        for side in (base, new):
            if len(side.machines) > 1:
                titles = "; ".join(machine.title for machine in side.machines.values())
                raise RecordError(f"{side.path}: --across-machines wants one machine a side; got {titles}")
    elif not base.machines.keys() & new.machines.keys():
        one, other = next(iter(base.machines.values())), next(iter(new.machines.values()))
        raise RecordError(
            f"{base.path} and {new.path} come from different machines ({differences(one, other, HARDWARE)}); "
            "add --across-machines to compare them nonetheless"
        )


def _match(key: Key, before: Cell | None, after: Cell | None) -> tuple[list[Row], list[_Pair]]:
    """The rows of one cell that need no statistics, and its pairs that do."""
    title = (after or before).title  # type: ignore[union-attr]

    def row(verdict: Verdict, question: str, reason: str) -> Row:
        return Row(verdict, title, key.backend, question, key.machine, reason)

    if after is not None and after.status in _BROKEN:
        known = " (in base, too)" if before is not None and before.status in _BROKEN else ""
        return [row("BROKEN", "", f"{_state(after)}{known}")], []
    if after is not None and after.status == "throttled":
        return [row("AMBIGUOUS", "", f"{_state(after)}; let the machine cool and run it again")], []
    if before is not None and before.status == "throttled" and after is not None:
        return [row("AMBIGUOUS", "", f"base was {_state(before)}; run base again")], []
    old, fresh = before.timed if before else {}, after.timed if after else {}
    rows = [row("GONE", question, f"new: {_state(after)}") for question in old if question not in fresh]
    rows += [row("NEW", question, f"base: {_state(before)}") for question in fresh if question not in old]
    if before is None or after is None:
        return rows, []
    floor = max(before.noise_floor, after.noise_floor)
    shared = [question for question in old if question in fresh]
    return rows, [_Pair(key, title, question, old[question], fresh[question], floor) for question in shared]


def _state(cell: Cell | None) -> str:
    """A side's state in words, for a reason."""
    if cell is None:
        return "absent"
    if cell.status == "ok":
        return "not timed"
    return f"{cell.status}: {cell.reason}" if cell.reason else cell.status


def _judge(pairs: list[_Pair], threshold: float) -> list[Row]:
    if not pairs:
        return []
    found = ratios([pair.base for pair in pairs], [pair.new for pair in pairs], [pair.question for pair in pairs])
    centre = found.new - found.base
    # Plain numbers from here: a Python loop over numpy's is slow.
    columns = (
        np.exp(found.base),
        np.exp(found.new),
        np.exp(centre),
        np.exp(centre - found.reach),
        np.exp(centre + found.reach),
        centre,
        found.reach,
        found.significant,
    )
    rows = []
    for pair, *numbers in zip(pairs, *(column.tolist() for column in columns), strict=True):
        base_ns, new_ns, ratio, low, high, log_ratio, reach, significant = numbers
        verdict, reason = _verdict(pair, log_ratio, reach, significant, threshold)
        interval = (low, high) if math.isfinite(reach) else (None, None)
        measured = (base_ns, new_ns, ratio, *interval, len(pair.base), len(pair.new), pair.noise_floor)
        rows.append(Row(verdict, pair.title, pair.key.backend, pair.question, pair.key.machine, reason, *measured))
    return rows


def _verdict(pair: _Pair, centre: float, reach: float, significant: bool, threshold: float) -> tuple[Verdict, str]:
    fewest = min(len(pair.base), len(pair.new))
    if fewest < FEWEST_LAUNCHES:
        return "AMBIGUOUS", f"{fewest} launch on one side; measure at least {FEWEST_LAUNCHES}, better 3"
    size, margin = abs(centre), math.log1p(threshold)
    if size + reach < margin:
        return "SAME", ""
    if size - reach <= margin:
        return "AMBIGUOUS", f"the interval straddles {threshold:.1%}; {_advice(pair, reach, abs(size - margin))}"
    if size <= math.log1p(pair.noise_floor):
        return "AMBIGUOUS", f"below the noise floor of {pair.noise_floor:.1%}; measure on a quieter machine"
    if not significant:
        return "AMBIGUOUS", f"could be chance among so many cells; {_advice(pair, reach, size - margin)}"
    return ("SLOWER" if centre > 0 else "FASTER"), ""


def _advice(pair: _Pair, reach: float, distance: float) -> str:
    """How many launches would shrink the interval's reach to half the distance between estimate and threshold."""
    launches = max(len(pair.base), len(pair.new))
    wanted = launches * (2 * reach / distance) ** 2 if distance > 0 else math.inf
    if wanted > MOST_LAUNCHES:
        return "too near the threshold for more launches to settle"
    return f"about {max(math.ceil(wanted), launches + 1)} launches a side would settle it"

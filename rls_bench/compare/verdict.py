"""Judges every cell of two sides: FASTER, SLOWER, SAME, AMBIGUOUS, NEW, GONE or BROKEN.

A cell is called faster or slower only where three things hold: its interval lies wholly beyond the threshold, its
estimate beyond the noise floor of both runs, and the difference is significant with all cells judged together. It is
called the same only where its interval lies wholly within the threshold. All else is ambiguous, and says what would
settle it. Strictly judged, a cell is faster or slower only where it is so by more than the threshold for certain, with
all cells judged together. Where the machine drifted during a run, an interval also holds what the cell did beside the
median one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rls_bench.compare.controls import Control, control
from rls_bench.compare.disturbance import complaints, moved_floors
from rls_bench.compare.notes import HARDWARE, cautions, differences, notes
from rls_bench.compare.ratios import FEWEST_UNITS, Ratios, ratios
from rls_bench.compare.sources import Cell, Key, Source
from rls_bench.errors import RecordError
from rls_bench.records.record import Question
from rls_bench.records.standing import Evidence

Verdict = Literal["BROKEN", "SLOWER", "AMBIGUOUS", "GONE", "NEW", "FASTER", "SAME"]
# Worst first: the order of every table.
ORDER: tuple[Verdict, ...] = ("BROKEN", "SLOWER", "AMBIGUOUS", "GONE", "NEW", "FASTER", "SAME")

# More launches than this nobody will run to settle one cell.
MOST_LAUNCHES = 200
# Standard errors that an estimate must lie from where it is to be told, with a chance of four in five to do so: from
# the threshold at 5 % to one side, and from nothing at all among some hundred cells.
_TELLING, _TELLING_AMONG_MANY = 1.64 + 0.84, 4.2 + 0.84

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
    # The ratio of clock cycles, across machines whose clocks were measured.
    cycles_ratio: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Every cell of two sides, worst first. ``threshold`` is relative: 0.03 is 3 %."""

    base: Source
    new: Source
    threshold: float
    across_machines: bool
    rows: list[Row]
    notes: list[str]
    # What to know before any verdict: all cells moved, or the machine did.
    cautions: list[str] = field(default_factory=list)
    strict: bool = False
    # Backends whose cells may go.
    may_go: frozenset[str] = frozenset()

    @property
    def counts(self) -> dict[str, int]:
        """How many cells got each verdict, worst first; verdicts that nobody got are left out."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in ORDER if counted[verdict]}

    @property
    def exit_code(self) -> int:
        """1 where a cell is slower or broken; else 4 where one is gone that may not, 3 where one is ambiguous, or 0."""
        verdicts = self.counts.keys()
        if verdicts & {"SLOWER", "BROKEN"}:
            return 1
        if any(row.verdict == "GONE" and row.backend not in self.may_go for row in self.rows):
            return 4
        return 3 if "AMBIGUOUS" in verdicts else 0


class _Pair(NamedTuple):
    """A cell with latency on both sides, for one question."""

    key: Key
    title: str
    question: Question
    base: Evidence
    new: Evidence
    # New over base, where both are known.
    clock_ratio: float | None = None

    @property
    def group(self) -> tuple[str, Question]:
        """Cells of one machine and question scatter alike, and are each other's control."""
        return self.key.machine, self.question

    @property
    def noise_floor(self) -> float:
        base, new = self.base.floor, self.new.floor
        # max() would pass over the second's NaN. A NaN is no number's equal, its own neither.
        return base if base >= new or base != base else new


class _Finding(NamedTuple):
    """One pair's figures, in natural logarithms; ``low`` and ``high`` are the interval's ends."""

    centre: float
    low: float
    high: float
    error: float
    significant: bool
    excessive: bool
    shift: float


def compare(
    base: Source,
    new: Source,
    *,
    threshold: float = 0.03,
    across_machines: bool = False,
    strict: bool = False,
    may_go: Iterable[str] = (),
) -> Comparison:
    """Judge every cell of ``new`` against ``base``; both must have been loaded with the same ``across_machines``.

    ``strict`` calls a cell faster or slower only where it is so by more than ``threshold`` among all cells together.

    ``may_go`` names backends whose loss is meant. Where the machine was disturbed, no cell is called slower or faster.

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
        found, measured = match(key, base.cells.get(key), new.cells.get(key))
        rows += found
        pairs += measured
        unjudged += not found and not measured
    controls = _controls(pairs)
    judged = _judge(pairs, threshold, controls, strict)
    disturbed, moved = complaints(base, new), moved_floors(judged, base, new)
    # A machine that was equally busy for both slows both; the intervals know how much it scatters.
    uneven = disturbed[0] if bool(base.warnings) != bool(new.warnings) else ""
    judged = [_doubted(row, uneven or moved.get(row.machine, "")) for row in judged]
    rows = sorted(rows + judged, key=lambda row: (ORDER.index(row.verdict), row.problem, row.backend, row.question))
    told = [*disturbed, *moved.values()]
    told += cautions({(base.title(machine), question): found for (machine, question), found in controls.items()})
    return Comparison(
        base, new, threshold, across_machines, rows, notes(base, new, unjudged), told, strict, frozenset(may_go)
    )


def _doubted(row: Row, why: str) -> Row:
    """``row``, or where it holds the machine's difference for the code's, an ambiguous one."""
    if not why or row.verdict not in ("SLOWER", "FASTER"):
        return row
    return row._replace(
        verdict="AMBIGUOUS", reason=f"{row.verdict.lower()}, but {why}; measure both on a quiet machine"
    )


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


def match(key: Key, before: Cell | None, after: Cell | None) -> tuple[list[Row], list[_Pair]]:
    """The rows of one cell that need no statistics, and its pairs that do."""
    title = (after or before).title  # type: ignore[union-attr]

    def row(verdict: Verdict, question: str, reason: str) -> Row:
        return Row(verdict, title, key.backend, question, key.machine, reason)

    if after is not None and after.standing.status in _BROKEN:
        known = " (in base, too)" if before is not None and before.standing.status in _BROKEN else ""
        return [row("BROKEN", "", f"{_state(after)}{known}")], []
    if after is not None and after.standing.status == "throttled":
        return [row("AMBIGUOUS", "", f"{_state(after)}; let the machine cool and run it again")], []
    if before is not None and before.standing.status == "throttled" and after is not None:
        return [row("AMBIGUOUS", "", f"base was {_state(before)}; run base again")], []
    old, fresh = before.timed if before else {}, after.timed if after else {}
    rows = [row("GONE", question, f"new: {_state(after)}") for question in old if question not in fresh]
    rows += [row("NEW", question, f"base: {_state(before)}") for question in fresh if question not in old]
    if before is None or after is None:
        return rows, []
    shared = [question for question in old if question in fresh]
    clocks = after.clock_mhz / before.clock_mhz if before.clock_mhz and after.clock_mhz else None
    return rows, [_Pair(key, title, question, old[question], fresh[question], clocks) for question in shared]


def _state(cell: Cell | None) -> str:
    """A side's state in words, for a reason."""
    if cell is None:
        return "absent"
    status, reason = cell.standing.status, cell.standing.reason
    if status == "ok":
        return "not timed"
    return f"{status}: {reason}" if reason else status


def _controls(pairs: list[_Pair]) -> dict[tuple[str, Question], Control]:
    groups: dict[tuple[str, Question], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    found = {}
    for group, members in groups.items():
        shifts = [_mean(pair.new.units) - _mean(pair.base.units) for pair in members]
        # Of several runs the units are no launches.
        base, new = (
            [side.units for side in sides if side.launches == len(side.units)]
            for sides in ([pair.base for pair in members], [pair.new for pair in members])
        )
        found[group] = control(base, new, shifts)
    return found


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _judge(
    pairs: list[_Pair], threshold: float, controls: dict[tuple[str, Question], Control], strict: bool
) -> list[Row]:
    if not pairs:
        return []
    # Runs scatter by more than launches do.
    groups = tuple(
        [(*pair.group, side.launches == len(side.units)) for pair, side in zip(pairs, sides, strict=True)]
        for sides in ([pair.base for pair in pairs], [pair.new for pair in pairs])
    )
    found = ratios(
        [pair.base.units for pair in pairs],
        [pair.new.units for pair in pairs],
        (groups[0], groups[1]),
        math.log1p(threshold),
        [pair.base.blur + pair.new.blur for pair in pairs],
    )
    rows = []
    for pair, base, finding in zip(pairs, found.base.tolist(), _findings(pairs, found, controls), strict=True):
        verdict, reason = _verdict(pair, finding, threshold, strict)
        low, high = math.exp(finding.low), math.exp(finding.high) if finding.high < math.inf else math.inf
        rows.append(
            Row(
                verdict,
                pair.title,
                pair.key.backend,
                pair.question,
                pair.key.machine,
                reason,
                base_ns=math.exp(base),
                new_ns=math.exp(base + finding.centre),
                ratio=math.exp(finding.centre),
                low=low if high < math.inf else None,
                high=high if high < math.inf else None,
                base_launches=pair.base.launches,
                new_launches=pair.new.launches,
                noise_floor=pair.noise_floor,
                cycles_ratio=None if pair.clock_ratio is None else math.exp(finding.centre) * pair.clock_ratio,
            )
        )
    return rows


def _findings(pairs: list[_Pair], found: Ratios, controls: dict[tuple[str, Question], Control]) -> Iterator[_Finding]:
    # Plain numbers from here: a Python loop over numpy's is slow.
    columns = (found.new - found.base, found.reach, found.error, found.significant, found.excessive)
    for pair, *numbers in zip(pairs, *(column.tolist() for column in columns), strict=True):
        centre, reach, error, significant, excessive = numbers
        by_group = controls[pair.group]
        # Either all cells have moved, or the machine has.
        least, most = sorted((0.0, by_group.shift)) if by_group.is_adrift else (0.0, 0.0)
        yield _Finding(
            centre, centre - most - reach, centre - least + reach, error, significant, excessive, by_group.shift
        )


def _verdict(pair: _Pair, found: _Finding, threshold: float, strict: bool) -> tuple[Verdict, str]:
    fewest = min(len(pair.base.units), len(pair.new.units))
    if fewest < FEWEST_UNITS:
        return "AMBIGUOUS", f"{fewest} launch on one side; measure at least {FEWEST_UNITS}, better 3"
    if found.high == math.inf and math.isfinite(found.centre):
        return "AMBIGUOUS", "all samples read the same: the clock is too coarse for this call"
    # Each test below asks for what must be shown; NaN shows nothing.
    if not math.isfinite(found.centre + found.low + found.high + pair.noise_floor):
        return "AMBIGUOUS", "a latency or a noise floor is no number; measure again"
    margin = math.log1p(threshold)
    if -margin < found.low and found.high < margin:
        return "SAME", f"within {percent(math.expm1(max(found.high, -found.low)))}"
    # How far beyond the near end of the interval is, to the side of the estimate.
    size, bound = abs(found.centre), found.low if found.centre > 0 else -found.high
    if bound <= margin:
        advice = _advice(pair, found.error, abs(size - margin), _TELLING)
        return "AMBIGUOUS", f"the interval straddles {threshold:.1%}; {advice}"
    if size <= math.log1p(pair.noise_floor):
        return "AMBIGUOUS", f"below the noise floor of {pair.noise_floor:.1%}; measure on a quieter machine"
    if not found.significant:
        advice = _advice(pair, found.error, size, _TELLING_AMONG_MANY)
        return "AMBIGUOUS", f"could be chance among so many cells; {advice}"
    if strict and not found.excessive:
        advice = _advice(pair, found.error, size - margin, _TELLING_AMONG_MANY)
        return "AMBIGUOUS", f"beyond {threshold:.1%} perhaps by chance, among so many cells; {advice}"
    beside = ""
    if found.shift and abs(found.centre - found.shift) - (size - bound) <= margin:
        beside = f", but no more than the median cell, which moved by {math.expm1(found.shift):+.1%}"
    if found.centre > 0:
        return "SLOWER", f"by at least {percent(math.expm1(bound))}{beside}"
    return "FASTER", f"by at least {percent(-math.expm1(-bound))}{beside}"


def percent(share: float) -> str:
    """Two digits that count: 3.4 %, 0.039 %."""
    return f"{100 * share:.2g} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"


def _advice(pair: _Pair, error: float, distance: float, telling: float) -> str:
    """How many launches a side would most likely tell an estimate from what lies ``distance`` away."""
    if pair.base.launches != len(pair.base.units) or pair.new.launches != len(pair.new.units):
        return "more runs would settle it, or rls-bench ab, which measures both at once"
    launches = max(pair.base.launches, pair.new.launches)
    of_one = error**2 / (1 / pair.base.launches + 1 / pair.new.launches)
    wanted = 2 * of_one * (telling / distance) ** 2 if distance > 0 else math.inf
    if wanted > MOST_LAUNCHES:
        return "too near the threshold for more launches to settle"
    # One more, for the little that few launches know of their own scatter.
    return f"about {max(math.ceil(wanted), launches) + 1} launches a side would settle it"

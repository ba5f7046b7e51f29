"""What all records of one cell add up to: which commit speaks, whether it is right, and what its launches are.

A cell is one backend on one problem of one machine, wherever its records come from. Three rules: the newest commit
speaks, and older ones are left out; within a run the worst of a backend's labels counts, for they ran the same code,
and only a later run replaces it; launches of labels that ran side by side are averaged, and several runs are one unit
each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rls_bench.records.record import Question, Status
from rls_bench.records.statistics import averaged, blur, units

# Worst first. What was measured beats what could not be.
_WORST: tuple[Status, ...] = (
    "wrong",
    "wrong backend",
    "crashed",
    "failed",
    "timeout",
    "out_of_memory",
    "throttled",
    "ok",
    "unsupported",
    "unavailable",
)


class Told(Protocol):
    """The fields of a record that count here, whoever decoded it."""

    @property
    def run(self) -> str: ...

    @property
    def created(self) -> str: ...

    @property
    def status(self) -> Status: ...

    @property
    def reason(self) -> str: ...

    @property
    def commit(self) -> str | None: ...

    @property
    def dirty(self) -> bool: ...

    @property
    def samples_ns(self) -> dict[Question, list[list[float]]]: ...

    @property
    def noise_floor(self) -> float | None: ...

    @property
    def noise_floors(self) -> dict[Question, float]: ...


class Entry(NamedTuple):
    """What one record says of its cell; ``log_medians`` one a launch, ``blurs`` as ``statistics.blur``."""

    run: str
    created: str
    commit: str
    status: Status
    reason: str
    log_medians: dict[Question, list[float]]
    blurs: dict[Question, float]
    floors: dict[Question, float]


class Evidence(NamedTuple):
    """The latency of a cell for one question: ``units`` are log medians, ``launches`` how many processes they are of.

    ``floor`` is the least noise floor of its runs: what a noisier one adds shows in how far the units scatter.
    """

    units: list[float]
    launches: int
    blur: float
    floor: float


@dataclass(frozen=True)
class Standing:
    """Where a cell stands: ``status`` and ``reason`` of its latest run, ``older`` the commits that were left out."""

    status: Status
    reason: str
    commit: str
    older: tuple[str, ...] = ()
    evidence: dict[Question, Evidence] = field(default_factory=dict)


def entry_of(record: Told, floors: dict[Question, float] | None = None) -> Entry:
    """What ``record`` says; launches without a usable sample don't count. ``floors`` are its run's, else its own."""
    medians: dict[Question, list[float]] = {}
    blurs: dict[Question, float] = {}
    for question, launches in record.samples_ns.items():
        if found := _log_medians(launches):
            medians[question] = found
            # Only a coarse clock gives two launches the same median.
            if len(set(found)) < len(found):
                blurs[question] = blur([samples for samples in launches if samples and min(samples) > 0])
    commit = "" if record.commit is None else record.commit + ("+changes" if record.dirty else "")
    own = floors_of(record) if floors is None else floors
    return Entry(record.run, record.created, commit, record.status, record.reason, medians, blurs, own)


def floors_of(record: Told) -> dict[Question, float]:
    """The noise floor for each question; an older record has one for all."""
    if record.noise_floors or record.noise_floor is None:
        return record.noise_floors
    return dict.fromkeys(record.samples_ns, record.noise_floor)


def standing(entries: Sequence[Entry]) -> Standing:
    """What ``entries`` of one cell, in the order that they were written, add up to."""
    if len(entries) == 1:
        # Nearly all cells of a large file.
        (only,) = entries
        alone = {
            question: Evidence(medians, len(medians), only.blurs.get(question, 0.0), only.floors.get(question, 0.0))
            for question, medians in only.log_medians.items()
        }
        return Standing(only.status, only.reason, only.commit, (), alone if only.status == "ok" else {})
    # Stable: of one moment the later line counts.
    ordered = sorted(entries, key=lambda each: each.created)
    newest = ordered[-1].commit
    runs: dict[str, list[Entry]] = {}
    for each in ordered:
        if each.commit == newest:
            runs.setdefault(each.run, []).append(each)
    settled = [(_worst(labels), labels) for labels in runs.values()]
    status, reason = settled[-1][0].status, settled[-1][0].reason
    older = tuple(dict.fromkeys(each.commit for each in ordered if each.commit != newest))
    right = [labels for worst, labels in settled if worst.status == "ok"] if status == "ok" else []
    questions = dict.fromkeys(question for labels in right for each in labels for question in each.log_medians)
    return Standing(status, reason, newest, older, {question: _evidence(right, question) for question in questions})


def _log_medians(launches: Sequence[list[float]]) -> list[float]:
    """One a launch that has a usable sample: sorting a few numbers here costs less than handing them to numpy."""
    medians = []
    for samples in launches:
        ordered = sorted(samples)
        count = len(ordered)
        if count and ordered[0] > 0:
            medians.append(math.log((ordered[count // 2] + ordered[(count - 1) // 2]) / 2))
    return medians


def _worst(labels: Iterable[Entry]) -> Entry:
    return min(labels, key=lambda each: _WORST.index(each.status))


def _evidence(runs: Sequence[Sequence[Entry]], question: Question) -> Evidence:
    asked = [[each for each in labels if question in each.log_medians] for labels in runs]
    asked = [labels for labels in asked if labels]
    launches = [averaged([each.log_medians[question] for each in labels]) for labels in asked]
    every = [each for labels in asked for each in labels]
    return Evidence(
        units(launches),
        sum(map(len, launches)),
        max(each.blurs.get(question, 0.0) for each in every),
        min(max(each.floors.get(question, 0.0) for each in labels) for labels in asked),
    )

"""What one measurement is, and how it lies in a file: one JSON object a line, append-only, schema versioned."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import lines

SCHEMA = 1

Status = Literal[
    "ok",
    "unavailable",
    "unsupported",
    "wrong",
    "wrong backend",
    "failed",
    "crashed",
    "timeout",
    "out_of_memory",
    "throttled",
]
# Which question a latency answers: caches warm, caches flushed, replay of a CUDA graph, seen from the host.
Question = Literal["warm", "cold", "graph", "host"]

# What a figure may be. No call takes no time, nor thirty years.
Nanoseconds = Annotated[float, msgspec.Meta(gt=0, le=1e18)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1e300)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


@dataclass(frozen=True)
class Agreement:
    """How far one backend's output lies from the float64 oracle; errors are ‖out − oracle‖ / ‖oracle‖.

    ``error`` and ``floor`` are the worst (batch, head) of the backend and of plain eager attention in the same dtype;
    ``ratio`` is the worst of error / floor over (batch, head) pairs. A figure that is not finite is None.
    ``passed`` holds only with every check met; ``reason`` names the first that wasn't.
    """

    error: Share | None
    floor: Share | None
    ratio: Share | None
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """One cell of a run: one backend on one problem.

    ``samples_ns`` maps a question to one list of samples for each process launch, nanoseconds a call. ``label`` tells
    an A/A twin (``sdpa-cpu#2``) from its backend. ``stopped`` says why sampling ended: the interval was narrow
    enough, the budget ended, the cell was raced out, or somebody pressed Ctrl-C. Speed exists only beside agreement:
    a status other than ``ok`` carries no samples.
    """

    run: str
    created: str
    machine: Machine
    problem: Problem
    backend: str
    label: str
    status: Status
    reason: str = ""
    commit: str | None = None
    dirty: bool = False
    # Why the commit is None.
    commit_unknown: str = ""
    # The suite's name, or the options of ``run`` that chose the problems.
    suite: str = ""
    agreement: Agreement | None = None
    samples_ns: dict[Question, list[list[Nanoseconds]]] = field(default_factory=dict)
    warmup_ns: list[list[Nanoseconds]] = field(default_factory=list)
    rejected: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    stopped: Literal["", "interval", "budget", "raced", "interrupted"] = ""
    compile_seconds: Share | None = None
    peak_bytes: Bytes | None = None
    workspace_bytes: Bytes | None = None
    kernels: list[str] = field(default_factory=list)
    probes: dict[str, dict[str, float | str | None]] = field(default_factory=dict)
    # Threads and numerics switches of the backend's process, as the backend left them.
    settings: dict[str, str] = field(default_factory=dict)
    # False for plain attention, which ignores bias and strength and was judged at λ = 0.
    steers: bool = True
    # How far two labels of the same code may differ in this run, relative: for the first question, and for each; None
    # and empty until the run has an A/A pair.
    noise_floor: Share | None = None
    noise_floors: dict[Question, Share] = field(default_factory=dict)
    # How often sampling looked whether the interval was narrow: an interval that ended it must allow for that.
    looks: Annotated[int, msgspec.Meta(ge=1, le=2**62)] = 1
    # What the run was told of its machine: other processes, stolen time, a clock held down. Empty where it was quiet.
    warnings: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status != "ok" and self.samples_ns:
            raise ValueError(
                f"a record with status {self.status!r} carries no latency: speed exists only beside agreement"
            )
        if self.status == "ok" and self.samples_ns and (self.agreement is None or not self.agreement.passed):
            raise ValueError("a record with latency needs an agreement that passed")
        self.problem.check()


@dataclass(frozen=True)
class Skipped:
    """A line of a results file that could not be read, and why."""

    path: Path
    line: int
    reason: str


def none_in(paths: Iterable[Path], skipped: list[Skipped]) -> RecordError:
    """The error to raise where no record was read; names the first line that could not be."""
    bad = (
        f"; {len(skipped)} lines could not be read, first line {skipped[0].line}: {skipped[0].reason}"
        if skipped
        else ""
    )
    return RecordError(f"{', '.join(map(str, paths))}: wanted at least one record; got none{bad}")


# What decoding raises for a bad line; nesting without end is a RecursionError.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
Identity = tuple[object, ...]


def identity(run: str, label: str, status: Status, work: str, machine: object) -> Identity:
    """What a record is evidence of, with all its launches: two that share it are one, wherever they lie.

    A status other than the first one's is more evidence: what crashed after it was timed has crashed.
    """
    return run, label, status, work, machine


def another(run: str, label: str, problem: str) -> str:
    """Why a second record of one identity is left out."""
    return f"run {run} has other figures of {label} on {problem} already"


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)


def append(path: Path, record: Record) -> None:
    """Append one whole line to ``path`` under a lock, so that two runs can share a file.

    Raises RecordError where the line cannot be written; the file is cut back to its earlier lines then.
    """
    line = _ENCODER.encode(record) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            start = file.seek(0, os.SEEK_END)
            # A line that a killed writer left torn must not swallow this one.
            torn = start > 0 and os.pread(file.fileno(), 1, start - 1) != b"\n"
            try:
                _write_whole(file.fileno(), b"\n" + line if torn else line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
    except OSError as error:
        raise RecordError(
            f"results file {path}: a record could not be written ({error.strerror}); earlier lines are intact"
        ) from error


def _write_whole(descriptor: int, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += os.write(descriptor, line[written:])


def read(path: Path, skipped: list[Skipped] | None = None) -> Iterator[Record]:
    """Yield the records of ``path``; lines that cannot be read go to ``skipped`` with the reason, the rest load.

    Raises RecordError where the file itself cannot be opened.
    """
    return (entry for _, entry in _numbered(path, skipped))


def _numbered(path: Path, skipped: list[Skipped] | None) -> Iterator[tuple[int, Record]]:
    with lines.opened(path) as found:
        for number, line in enumerate(found, start=1):
            if not line.strip():
                continue
            try:
                yield number, decode(line)
            except UNREADABLE as error:
                if skipped is not None:
                    skipped.append(Skipped(path, number, str(error)))


def read_all(paths: Iterable[Path], skipped: list[Skipped] | None = None) -> list[Record]:
    """The records of all ``paths``, each once: a file that was copied, or given twice, is no more evidence.

    A run's record of a label and a problem that says other than an earlier one goes to ``skipped``. Raises as
    ``read``.
    """
    kept: dict[Identity, Record] = {}
    for path in paths:
        for number, entry in _numbered(path, skipped):
            first = kept.setdefault(
                identity(entry.run, entry.label, entry.status, entry.problem.key, entry.machine), entry
            )
            if first != entry and skipped is not None:
                skipped.append(Skipped(path, number, another(entry.run, entry.label, entry.problem.title)))
    return list(kept.values())


class _Versioned(msgspec.Struct):
    schema: int


_VERSION = msgspec.json.Decoder(_Versioned)


def decode(line: bytes) -> Record:
    """The record of one line. Raises one of UNREADABLE."""
    try:
        record = _DECODER.decode(line)
    except msgspec.ValidationError:
        # A line of another schema says so, rather than name whichever field happened to differ.
        if (schema := _VERSION.decode(line).schema) != SCHEMA:
            raise ValueError(f"schema {schema}; this version reads {SCHEMA}") from None
        raise
    if record.schema != SCHEMA:
        raise ValueError(f"schema {record.schema}; this version reads {SCHEMA}")
    return record

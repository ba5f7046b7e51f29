"""What a run has done so far, one JSON line an event, so that ``kill -9`` loses the sample in flight and no more.

The journal lies beside the results file while the run goes on, locked by its coordinator, and is removed at its end.
A journal that nobody holds belongs to a run that was killed; ``--resume`` goes on with it.
"""

from __future__ import annotations

import fcntl
import os
from glob import escape
from pathlib import Path

import msgspec

from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
from rls_bench.records.record import Agreement, Question, Status
from rls_bench.runner.plan import Plan

VERSION = 2


class Started(msgspec.Struct, tag=True):
    run: str
    created: str
    plan: Plan
    commit: str | None
    dirty: bool
    version: int = VERSION
    commit_unknown: str = ""


class Met(msgspec.Struct, tag=True):
    """The machine that the run is on."""

    machine: Machine


class Twinned(msgspec.Struct, tag=True):
    """The backend that runs twice, for the noise floor."""

    backend: str


class Checked(msgspec.Struct, tag=True):
    """The first launch's look at a cell before any timing; ``measurable`` False: agreement is all that it gets."""

    label: str
    problem: int
    agreement: Agreement | None
    compile_seconds: float | None
    peak_bytes: int | None
    workspace_bytes: int | None
    kernels: list[str]
    probes: dict[str, dict[str, float | str | None]]
    measurable: bool
    note: str = ""
    settings: dict[str, str] = {}
    steers: bool = True


class Took(msgspec.Struct, tag=True):
    """Samples of one turn, nanoseconds a call."""

    label: str
    problem: int
    launch: int
    question: Question
    samples_ns: list[float]
    warmup_ns: list[float] = []
    rejected: int = 0
    note: str = ""


class Redone(msgspec.Struct, tag=True):
    """One problem's turns of a launch begin anew: something worked beside them, and what they took doesn't count."""

    problem: int
    launch: int


class Ended(msgspec.Struct, tag=True):
    """A cell that can't go on, and why."""

    label: str
    problem: int
    status: Status
    reason: str


Entry = Met | Twinned | Checked | Took | Redone | Ended
_LINE: msgspec.json.Decoder[Started | Entry] = msgspec.json.Decoder(Started | Entry)


class Journal:
    """An open journal; every entry is with the kernel when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A line that a killed run left torn must not swallow the next one.
            size = self._file.seek(0, os.SEEK_END)
            if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
                os.write(self._file.fileno(), b"\n")
        except OSError as error:
            raise RecordError(f"journal {path}: cannot be written ({error.strerror})") from error

    def write(self, entry: Started | Entry) -> None:
        """Append one entry; raises RecordError where the disk refuses it."""
        line = msgspec.json.encode(entry) + b"\n"
        try:
            while line:
                line = line[os.write(self._file.fileno(), line) :]
        except OSError as error:
            raise RecordError(
                f"journal {self.path}: cannot be written ({error.strerror}); free some space, then run with --resume"
            ) from error

    def close(self, remove: bool) -> None:
        """Let go of the journal, and remove it where the run is complete."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()


def beside(out: Path, run: str) -> Path:
    """Where the journal of ``run`` lies while it writes to ``out``."""
    return out.with_name(f"{out.name}.{run}.part")


def abandoned(out: Path) -> Path | None:
    """The newest journal beside ``out`` that no living run holds and that has a first line, or None."""
    found = sorted(out.parent.glob(f"{escape(out.name)}.*.part"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in found if not _held(path) and _has_start(path)), None)


def is_begun(out: Path) -> bool:
    """Whether any run beside ``out``, alive or not, has a journal with a first line."""
    return any(map(_has_start, out.parent.glob(f"{escape(out.name)}.*.part")))


def read(path: Path) -> tuple[Started, list[Entry]]:
    """The journal's start and its entries; a torn last line is the sample in flight and is dropped.

    Raises RecordError where the journal has no start or is another version's.
    """
    lines = path.read_bytes().split(b"\n")
    try:
        started = _LINE.decode(lines[0])
    except msgspec.MsgspecError as error:
        raise RecordError(
            f"journal {path}: its first line cannot be read ({error}); remove it and start anew"
        ) from error
    if not isinstance(started, Started) or started.version != VERSION:
        raise RecordError(f"journal {path}: wanted version {VERSION}; remove it and start anew")
    entries: list[Entry] = []
    for line in lines[1:]:
        try:
            entry = _LINE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if not isinstance(entry, Started):
            entries.append(entry)
    return started, entries


def _has_start(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def _held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

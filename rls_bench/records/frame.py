"""Results files as one pandas frame, a row a record, quickly enough for a million of them.

Only what a table or a plot needs is decoded. Machines and problems, which repeat, are decoded once each.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.lines import pass_mark
from rls_bench.records.record import SCHEMA, UNREADABLE, Nanoseconds, Share, Skipped, Status

if TYPE_CHECKING:
    import pandas as pd

# Small enough that the rows of one chunk stay in the cache until they are columns.
_CHUNK_BYTES = 1 << 18
_QUESTIONS = ("warm", "cold", "graph", "host")


class _Agreement(msgspec.Struct, gc=False):
    error: Share | None
    floor: Share | None
    ratio: Share | None


class _Row(msgspec.Struct, gc=False):
    schema: int
    run: str
    created: str
    machine: msgspec.Raw
    problem: msgspec.Raw
    backend: str
    label: str
    status: Status
    reason: str = ""
    commit: str | None = None
    suite: str = ""
    stopped: str = ""
    agreement: _Agreement | None = None
    samples_ns: dict[str, list[list[Nanoseconds]]] = {}
    compile_seconds: Share | None = None
    peak_bytes: Share | None = None
    workspace_bytes: Share | None = None
    noise_floor: Share | None = None


_NO_AGREEMENT = _Agreement(None, None, None)
_ROWS = msgspec.json.Decoder(_Row)
_MACHINES = msgspec.json.Decoder(Machine)
_PROBLEMS = msgspec.json.Decoder(Problem)


def load_frame(paths: Iterable[Path], skipped: list[Skipped] | None = None) -> pd.DataFrame:
    """The records of ``paths``, in order.

    Words (run, label, status, …) are categorical columns. ``machine`` is the fingerprint, ``machine_title`` its
    one-line description; every field of the problem is a column of its own, with ``problem`` its identity and
    ``title`` its one-line description. ``error``, ``floor`` and ``ratio`` come from the agreement. For each question
    there is ``<question>_ns``, the geometric mean of the launches' medians in nanoseconds, and
    ``<question>_launches``, how many there are. What a record lacks is NaN.

    Lines that cannot be read go to ``skipped``. Raises RecordError where a file cannot be opened.
    """
    import numpy as np
    import pandas as pd

    words = {
        name: _Words()
        for name in ("run", "created", "backend", "label", "status", "reason", "commit", "suite", "stopped")
    }
    shared = {"machine": _Words(), "problem": _Words()}
    numbers: dict[str, list[Any]] = {name: [] for name in _figures([])}
    with _no_collections():
        for rows in _chunks(paths, [] if skipped is None else skipped):
            for name, column in words.items():
                column.extend(list(map(attrgetter(name), rows)))
            for name, column in shared.items():
                column.extend(list(map(bytes, map(attrgetter(name), rows))))
            for name, figures in _figures(rows).items():
                numbers[name].append(np.array(figures, dtype=np.float64))

    frame = pd.DataFrame({name: column.categorical() for name, column in words.items()})
    for name, parts in numbers.items():
        frame[name] = np.concatenate(parts) if parts else np.empty(0)
    machines = [_machine(raw) for raw in shared["machine"].values]
    problems = [_problem(raw) for raw in shared["problem"].values]
    frame["machine"] = shared["machine"].mapped([machine.fingerprint for machine in machines])
    frame["machine_title"] = shared["machine"].mapped([machine.title for machine in machines])
    frame["problem"] = shared["problem"].mapped([problem.key for problem in problems])
    frame["title"] = shared["problem"].mapped([problem.title for problem in problems])
    for field in fields(Problem):
        frame[field.name] = shared["problem"].mapped([getattr(problem, field.name) for problem in problems])
    return frame


@contextmanager
def _no_collections() -> Iterator[None]:
    """Without the cyclic garbage collector, which would look through millions of lists that hold no cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Words:
    """A column of few distinct values, kept as codes."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}
        self._column: list[Any] = []

    def extend(self, values: list[Any]) -> None:
        import numpy as np

        codes = self._codes
        for value in dict.fromkeys(values):
            codes.setdefault(value, len(codes))
        self._column.append(np.fromiter(map(codes.__getitem__, values), dtype=np.int32, count=len(values)))

    @property
    def values(self) -> list[Any]:
        """The distinct values, in the order of their codes."""
        return list(self._codes)

    def categorical(self) -> pd.Series[Any]:
        """The column as words."""
        return self.mapped(self.values)

    def mapped(self, values: list[Any]) -> pd.Series[Any]:
        """The column with each distinct value replaced by its counterpart in ``values``; words become categories."""
        import numpy as np
        import pandas as pd

        codes = np.concatenate(self._column) if self._column else np.empty(0, dtype=np.int32)
        if values and not isinstance(values[0], (str, type(None))):
            return pd.Series(np.array(values)[codes])
        # Two machines may share a title.
        words = [value or "" for value in values]
        known = {word: place for place, word in enumerate(sorted(set(words)))}
        places = np.array([known[word] for word in words], dtype=np.int32)
        return pd.Series(pd.Categorical.from_codes(places[codes], dtype=pd.CategoricalDtype(list(known))))


def estimate(launches: list[list[float]] | None) -> float:
    """The geometric mean of the launches' medians, NaN without one; sorts the samples in place."""
    if not launches:
        return math.nan
    if len(launches) == 1:
        return _median(launches[0])
    return math.exp(sum([math.log(_median(samples)) for samples in launches]) / len(launches))


def _median(samples: list[float]) -> float:
    samples.sort()
    middle = len(samples) // 2
    return samples[middle] if len(samples) % 2 else (samples[middle - 1] + samples[middle]) / 2


def _figures(rows: list[_Row]) -> dict[str, list[Any]]:
    """The numeric columns of some rows; None becomes NaN."""
    agreements = [row.agreement or _NO_AGREEMENT for row in rows]
    figures: dict[str, list[Any]] = {
        "error": [agreement.error for agreement in agreements],
        "floor": [agreement.floor for agreement in agreements],
        "ratio": [agreement.ratio for agreement in agreements],
        "compile_seconds": [row.compile_seconds for row in rows],
        "peak_bytes": [row.peak_bytes for row in rows],
        "workspace_bytes": [row.workspace_bytes for row in rows],
        "noise_floor": [row.noise_floor for row in rows],
    }
    asked = [row.samples_ns for row in rows]
    for question in _QUESTIONS:
        launches = [samples.get(question) for samples in asked]
        if any(launches):
            figures[f"{question}_ns"] = [estimate(found) for found in launches]
            figures[f"{question}_launches"] = [len(found) if found else 0 for found in launches]
        else:
            figures[f"{question}_ns"] = [math.nan] * len(rows)
            figures[f"{question}_launches"] = [0] * len(rows)
    return figures


def _chunks(paths: Iterable[Path], skipped: list[Skipped]) -> Iterator[list[_Row]]:
    """Rows of some lines at a time."""
    for path in paths:
        number = 1
        try:
            file = path.open("rb")
        except OSError as error:
            raise RecordError(f"results file {path}: cannot be read ({error.strerror})") from error
        with file:
            pass_mark(file)
            while block := file.read(_CHUNK_BYTES):
                block += file.readline()
                yield _decoded(block, path, number, skipped)
                number += block.count(b"\n")


def _decoded(block: bytes, path: Path, first: int, skipped: list[Skipped]) -> list[_Row]:
    """The rows of whole lines; ``first`` is the number of the first one."""
    try:
        rows = _ROWS.decode_lines(block)
        for raw in {bytes(row.machine) for row in rows}:
            _machine(raw)
        for raw in {bytes(row.problem) for row in rows}:
            _problem(raw)
    except UNREADABLE:
        rows = []
    if rows and all(row.schema == SCHEMA for row in rows):
        return rows
    # Some line is bad: take them one by one to name it.
    rows = []
    for number, line in enumerate(block.split(b"\n"), start=first):
        if not line or line.isspace():
            continue
        try:
            row = _ROWS.decode(line)
            if row.schema != SCHEMA:
                raise ValueError(f"schema {row.schema}; this version reads {SCHEMA}")
            _machine(bytes(row.machine))
            _problem(bytes(row.problem))
        except UNREADABLE as error:
            skipped.append(Skipped(path, number, str(error)))
        else:
            rows.append(row)
    return rows


@lru_cache(maxsize=4096)
def _machine(raw: bytes) -> Machine:
    return _MACHINES.decode(raw)


@lru_cache(maxsize=4096)
def _problem(raw: bytes) -> Problem:
    problem = _PROBLEMS.decode(raw)
    problem.check()
    return problem

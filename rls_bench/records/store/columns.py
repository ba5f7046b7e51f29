"""The columns of a store: what a record says, one plain value each, and the line itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.frame import estimate
from rls_bench.records.record import SCHEMA, Question, Status

_WORDS = ("run", "created", "backend", "label", "status", "reason", "suite", "stopped")
_FIGURES = ("compile_seconds", "peak_bytes", "workspace_bytes", "noise_floor")
_MACHINE = ("cpu_model", "gpu_name", "gpu_uuid", "gpu_arch", "driver", "cuda", "cudnn", "torch", "triton", "python")
_QUESTIONS: tuple[Question, ...] = ("warm", "cold", "graph", "host")
# Its values say what type each of a problem's columns has.
_SAMPLE = Problem(1, 1, 1, 1, 1, 1, 1)


class _Agreement(msgspec.Struct, gc=False):
    error: float | None
    floor: float | None
    ratio: float | None


class _Fields(msgspec.Struct, gc=False):
    """What becomes columns; machine and problem, which repeat, stay bytes."""

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
    dirty: bool = False
    suite: str = ""
    stopped: str = ""
    agreement: _Agreement | None = None
    samples_ns: dict[Question, list[list[float]]] = {}
    compile_seconds: float | None = None
    peak_bytes: float | None = None
    workspace_bytes: float | None = None
    noise_floor: float | None = None


class Row(NamedTuple):
    """A line that can be kept: what it says, its machine's fingerprint and month, and what tells it from others."""

    fields: _Fields
    machine: bytes
    problem: bytes
    place: tuple[str, str]
    digest: int
    line: bytes


_FIELDS = msgspec.json.Decoder(_Fields)
_NO_AGREEMENT = _Agreement(None, None, None)


class Reader:
    """Makes rows of lines; each machine and problem is decoded once."""

    def __init__(self) -> None:
        self._machines: dict[bytes, Machine] = {}
        self._problems: dict[bytes, Problem] = {}
        self._fingerprints: dict[bytes, str] = {}

    def row(self, line: bytes, digest: int) -> Row:
        """``line`` as a row. Raises one of UNREADABLE."""
        found = _FIELDS.decode(line)
        if found.schema != SCHEMA:
            raise ValueError(f"schema {found.schema}; this version reads {SCHEMA}")
        machine, problem = bytes(found.machine), bytes(found.problem)
        if machine not in self._machines:
            self._machines[machine] = msgspec.json.decode(machine, type=Machine)
            self._fingerprints[machine] = self._machines[machine].fingerprint
        if problem not in self._problems:
            decoded = msgspec.json.decode(problem, type=Problem)
            decoded.check()
            self._problems[problem] = decoded
        return Row(found, machine, problem, (self._fingerprints[machine], _month(found.created)), digest, line)

    def table(self, arrow: Any, rows: Sequence[Row]) -> Any:
        """``rows`` as columns."""
        told = [row.fields for row in rows]
        columns: dict[str, Any] = {
            name: arrow.array([*map(attrgetter(name), told)], arrow.string()).dictionary_encode() for name in _WORDS
        }
        commits = [(each.commit or "") + "+changes" * each.dirty for each in told]
        columns["commit"] = arrow.array(commits, arrow.string()).dictionary_encode()
        for name in _FIGURES:
            columns[name] = arrow.array([*map(attrgetter(name), told)], arrow.float64())
        agreements = [each.agreement or _NO_AGREEMENT for each in told]
        for name in ("error", "floor", "ratio"):
            columns[f"agreement_{name}"] = arrow.array([*map(attrgetter(name), agreements)], arrow.float64())
        for question in _QUESTIONS:
            times = [estimate(each.samples_ns[question]) if question in each.samples_ns else None for each in told]
            columns[f"{question}_ns"] = arrow.array(times, arrow.float64())
        columns |= _shared(arrow, [row.machine for row in rows], self._machines, _of_machine)
        columns |= _shared(arrow, [row.problem for row in rows], self._problems, _of_problem)
        columns["digest"] = arrow.array([row.digest for row in rows], arrow.int64())
        columns["line"] = arrow.array([row.line for row in rows], arrow.binary())
        wanted = schema(arrow)
        return arrow.table([columns[name] for name in wanted.names], schema=wanted)


def digest(line: bytes) -> int:
    """Sixty-three bits that tell a line from every other."""
    return int.from_bytes(hashlib.sha1(line, usedforsecurity=False).digest()[:8], "big") >> 1


def schema(arrow: Any) -> Any:
    """The Parquet schema."""
    text, number = arrow.dictionary(arrow.int32(), arrow.string()), arrow.float64()
    plain = {int: arrow.int64(), float: number, bool: arrow.bool_()}
    columns = [(name, text) for name in (*_WORDS, "commit", *_MACHINE, "work", "title")]
    columns += [(each.name, plain.get(type(getattr(_SAMPLE, each.name)), text)) for each in fields(Problem)]
    columns += [(name, number) for name in (*_FIGURES, "agreement_error", "agreement_floor", "agreement_ratio")]
    columns += [(f"{question}_ns", number) for question in _QUESTIONS]
    return arrow.schema([*columns, ("digest", arrow.int64()), ("line", arrow.binary())])


def _month(created: str) -> str:
    """``2026-11``, or that it isn't known."""
    month = created[:7]
    return month if len(month) == 7 and month[4] == "-" and (month[:4] + month[5:]).isdecimal() else "unknown"


def _of_machine(machine: Machine) -> dict[str, Any]:
    return {name: getattr(machine, name) for name in _MACHINE}


def _of_problem(problem: Problem) -> dict[str, Any]:
    own = {each.name: getattr(problem, each.name) for each in fields(Problem)}
    return {"work": problem.key, "title": problem.title, **own}


def _shared(
    arrow: Any, raw: Sequence[bytes], known: dict[bytes, Any], words: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """Columns of what repeats: each distinct value is asked once."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(raw))}
    places = arrow.array([*map(codes.__getitem__, raw)], arrow.int32())
    told = [words(known[value]) for value in codes]
    columns = {}
    for name in told[0]:
        values = [each[name] for each in told]
        is_plain = isinstance(values[0], (int, float))
        few = arrow.array(values) if is_plain else arrow.array(values, arrow.string()).dictionary_encode()
        columns[name] = few.take(places)
    return columns

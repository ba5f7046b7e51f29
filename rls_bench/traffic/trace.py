"""The file of a recorded workload: JSON lines that several processes append to, each whole or torn at the end.

A line holds all calls so far that its process counted of the problems that changed since its last line. So a line that
is lost costs nothing once those problems are asked again, and of one that was torn nothing else is lost: each begins
with a line break of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec

from rls_bench.errors import ProblemError, RecordError
from rls_bench.problems import grammar
from rls_bench.problems.problem import Problem

SCHEMA = 1


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """What one process had counted at one moment: ``calls`` by device and title."""

    process: str
    # Seconds since 1970: when it began to count, and when it wrote this.
    began: float
    at: float
    calls: dict[str, dict[str, int]]
    # Calls of problems beyond the most that are told apart.
    uncounted: int = 0
    requests: int = 0
    schema: int = SCHEMA


@dataclass(frozen=True)
class Trace:
    """All that a file holds: calls of each problem, over all processes."""

    calls: dict[Problem, int]
    requests: int = 0
    uncounted: int = 0
    processes: int = 0
    # From the first process's beginning to the last line.
    seconds: float = 0.0
    # Lines that could not be read, with the reason of the first.
    torn: int = 0
    why_torn: str = field(default="", compare=False)


def append(path: Path, line: Line) -> None:
    """Append one whole line, however many processes do so at once. Raises OSError where that fails."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        content = b"\n" + msgspec.json.encode(line) + b"\n"
        if os.write(file, content) < len(content):
            raise OSError(f"{path}: only a part of a line could be written; is the disk full?")
    finally:
        os.close(file)


def read(path: Path) -> Trace:
    """What was recorded in ``path``; a line that cannot be read is left out and counted.

    Raises RecordError where the file cannot be read, or holds no line that can.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordError(f"workload {path}: cannot be read ({error.strerror})") from error
    calls: dict[tuple[str, Problem], int] = {}
    newest: dict[str, Line] = {}
    torn, why = 0, ""
    first, last = float("inf"), 0.0
    decoder = msgspec.json.Decoder(Line)
    for text in filter(None, raw.split(b"\n")):
        try:
            line = decoder.decode(text)
            counted = _problems(line)
        # A torn line may end within a character, or nest without end.
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            torn, why = torn + 1, why or str(error)
            continue
        for problem, number in counted.items():
            name = (line.process, problem)
            calls[name] = max(calls.get(name, 0), number)
        newest[line.process] = line
        first, last = min(first, line.began), max(last, line.at)
    if not newest:
        raise RecordError(f"workload {path}: wanted lines that record_workload wrote; got none" + (why and f": {why}"))
    summed: dict[Problem, int] = {}
    for (_, problem), number in calls.items():
        summed[problem] = summed.get(problem, 0) + number
    return Trace(
        calls=summed,
        requests=sum(line.requests for line in newest.values()),
        uncounted=sum(line.uncounted for line in newest.values()),
        processes=len(newest),
        seconds=max(0.0, last - first),
        torn=torn,
        why_torn=why,
    )


def _problems(line: Line) -> dict[Problem, int]:
    if line.schema != SCHEMA:
        raise ProblemError(f"schema {line.schema}; this version reads {SCHEMA}")
    found: dict[Problem, int] = {}
    for device, titles in line.calls.items():
        if not device.isidentifier():
            raise ProblemError(f"device: wanted a name such as cpu or cuda; got {device!r}")
        for title, number in titles.items():
            if number < 0:
                raise ProblemError(f"{title}: wanted 0 calls or more; got {number}")
            found[_parse(title, device)] = number
    return found


@lru_cache(maxsize=65536)
def _parse(title: str, device: str) -> Problem:
    return grammar.parse(title, device)

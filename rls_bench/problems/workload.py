"""Workloads: problems with weights, in TOML files; the suites that the package carries are such files, too.

about = "Chat traffic of one week"
# What weights are calls for every 1,000 of; "requests" where left out.
unit = "requests"

[[problems]]
name = "decode"
words = "B8 H32/8 Lq1 Lk4096 D128 bf16"
# 1 where left out.
weight = 3200
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from rls_bench.errors import ProblemError
from rls_bench.problems import grammar
from rls_bench.problems.problem import Problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


Unit = Literal["requests", "calls"]


@dataclass(frozen=True)
class Weighted:
    """One problem and how much it counts: calls for every 1,000 of its workload's unit."""

    problem: Problem
    weight: float = 1.0


@dataclass(frozen=True)
class Workload:
    """What is asked of a machine: problems with weights, and a line that says where they come from.

    Weights are calls for every 1,000 ``unit``: requests or, where nobody knows how many those were, calls.
    """

    problems: tuple[Weighted, ...]
    about: str = ""
    unit: Unit = "requests"

    @property
    def fingerprint(self) -> str:
        """Twelve digits that are equal exactly when the problems and their weights are, whatever their order."""
        lines = sorted(f"{one.problem.title} {one.weight!r}" for one in self.problems)
        return sha256("\n".join([self.unit, *lines]).encode()).hexdigest()[:12]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    words: str
    name: str = ""
    weight: float = 1.0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    problems: list[_Entry]
    about: str = ""
    unit: Unit = "requests"


def read(path: Path, device: str = "cpu") -> Workload:
    """The workload in the TOML file ``path``, its problems on ``device``. Raises ProblemError naming file and entry."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path}: wanted a workload file; it cannot be read: {error}") from error
    return parse(text, str(path), device)


def parse(text: str, source: str, device: str = "cpu") -> Workload:
    """The workload in ``text``; errors name ``source``."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProblemError(f"{source}: no workload file: {error}") from error
    if not file.problems:
        raise ProblemError(f"{source}: wanted at least one [[problems]]; got none")
    problems = tuple(_weighted(entry, n, source, device) for n, entry in enumerate(file.problems, 1))
    return Workload(problems, file.about, file.unit)


def _weighted(entry: _Entry, number: int, source: str, device: str) -> Weighted:
    if not (math.isfinite(entry.weight) and entry.weight > 0):
        raise ProblemError(f"{source}, problem {number}: weight: wanted a number > 0; got {entry.weight}")
    try:
        problem = grammar.parse(entry.words, device)
    except ProblemError as error:
        raise ProblemError(f"{source}, problem {number}: {error}") from error
    return Weighted(replace(problem, name=entry.name or problem.name), entry.weight)


def write(path: Path, workload: Workload) -> None:
    """Write ``workload`` to ``path`` so that ``read`` gives it back."""
    lines = [f"about = {_quoted(workload.about)}", f"unit = {_quoted(workload.unit)}"]
    for entry in workload.problems:
        lines += ["", "[[problems]]"]
        if entry.problem.name:
            lines.append(f"name = {_quoted(entry.problem.name)}")
        lines += [f"words = {_quoted(entry.problem.title)}", f"weight = {entry.weight!r}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(value: str) -> str:
    # JSON's strings are TOML's, but for one control character.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def crossed(problems: Iterable[Problem], axes: dict[str, Any]) -> list[Problem]:
    """Each of ``problems`` at every combination of ``axes``: ``batch`` and ``length``, lists of numbers.

    A length is the number of keys; where a problem has as many queries as keys it is that of the queries, too.
    """
    found = list(problems)
    if batches := axes.get("batch"):
        found = [replace(problem, batch=batch) for problem in found for batch in batches]
    if lengths := axes.get("length"):
        found = [
            replace(problem, key_length=n, query_length=n if problem.is_square else problem.query_length)
            for problem in found
            for n in lengths
        ]
    # Where an axis leaves nothing to tell two problems apart, one is enough.
    return list({problem.key: problem for problem in found}.values())

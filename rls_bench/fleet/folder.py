"""A fleet's folder: one results file a cell, named by what it is evidence of, so that nothing is measured twice.

``cells/KIND.MACHINE.WORK.BACKEND.VERSIONS.jsonl`` holds one backend on one problem by one machine with one set of
versions. ``records.jsonl`` is written anew at the end of each run: the cells that the verdict may count.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from rls_bench.errors import RecordError
from rls_bench.problems.problem import Problem
from rls_bench.records import lines, record
from rls_bench.records.record import Record


class Folder:
    """The files of a fleet under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cells = root / "cells"
        try:
            self._cells.mkdir(parents=True, exist_ok=True)
            # What a driver that was killed had only begun to write.
            for torn in self._cells.glob("*.part"):
                torn.unlink()
            names = [path.name for path in self._cells.glob("*.jsonl")]
        except OSError as error:
            raise RecordError(f"fleet folder {root}: cannot be used ({error.strerror})") from error
        self._names: dict[str, None] = {}
        # By kind, work, backend and versions.
        self._machines: dict[tuple[str, ...], set[str]] = {}
        for name in sorted(names):
            self._know(name)

    @property
    def verdict(self) -> Path:
        """The records that count, for ``report``, ``compare`` and ``choose``."""
        return self.root / lines.VERDICT

    def machines_with(self, kind: str, problem: Problem, backend: str, versions: Iterable[str]) -> set[str]:
        """The machines of ``kind`` that have measured this cell with one of ``versions`` (as ``mark`` gives them)."""
        cell = slug(kind), work(problem), slug(backend)
        return {machine for each in versions for machine in self._machines.get((*cell, each), ())}

    def add(self, kind: str, machine: str, versions: str, records: Iterable[Record]) -> int:
        """Write each cell of ``records`` into a file of its own, whole or not at all; how many there were."""
        cells: dict[tuple[str, str], list[Record]] = {}
        for entry in records:
            cells.setdefault((work(entry.problem), entry.backend), []).append(entry)
        for (digits, backend), entries in cells.items():
            name = ".".join((slug(kind), slug(machine), digits, slug(backend), versions, "jsonl"))
            content = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
            _write(self._cells / name, content)
            self._know(name)
        return len(cells)

    def read(self, kind: str, versions: Iterable[str]) -> dict[str, list[Record]]:
        """The records of ``kind``, by machine."""
        wanted = set(versions)
        found: dict[str, list[Record]] = {}
        for name in self._names:
            parts = name.split(".")
            if parts[0] == slug(kind) and parts[4] in wanted:
                found.setdefault(parts[1], []).extend(record.read(self._cells / name))
        return found

    def conclude(self, records: Iterable[Record]) -> None:
        """Replace the records that count."""
        _write(self.verdict, b"".join(msgspec.json.encode(entry) + b"\n" for entry in records))

    def _know(self, name: str) -> None:
        kind, machine, *cell, _ = name.split(".")
        self._names[name] = None
        self._machines.setdefault((kind, *cell), set()).add(machine)


def mark(versions: Mapping[str, str]) -> str:
    """Eight digits for a set of versions."""
    return _digits(repr(sorted(versions.items())), 8)


def slug(name: str) -> str:
    """``name`` as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_#-]+", "-", name)


def work(problem: Problem) -> str:
    """Twelve digits for what is asked of a machine."""
    return _digits(problem.key, 12)


def _digits(text: str, count: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:count]


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written ({error.strerror}); earlier cells are intact") from error

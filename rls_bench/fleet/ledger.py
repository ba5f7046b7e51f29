"""Every attempt that a fleet made: on which node and process, when, and how it ended. Append-only, one JSON a line."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

import msgspec

from rls_bench.errors import RecordError
from rls_bench.runner import provenance

How = Literal["measured", "failed", "lost", "interrupted", "driver lost"]


class Began(msgspec.Struct, tag="began", tag_field="event", frozen=True):
    """An attempt starts; ``pid`` is the agent's, whose children measure."""

    attempt: str
    time: str
    kind: str
    problem: str
    backends: list[str]
    machine: str
    node: str
    pid: int


class Ended(msgspec.Struct, tag="ended", tag_field="event", frozen=True):
    """How it ended; ``pid`` is the process that measured, 0 where nobody knows."""

    attempt: str
    time: str
    how: How
    reason: str = ""
    pid: int = 0


Line = Began | Ended
_LINE = msgspec.json.Decoder(Line)


class Ledger:
    """The ledger at ``path``, held by one driver alone; attempts of one that was killed are ended on opening."""

    def __init__(self, path: Path) -> None:
        """Raises RecordError where another driver works in this folder."""
        self._path = path
        try:
            self._file = path.open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RecordError(f"{path.parent}: another fleet run works in this folder; wait for it") from None
        except OSError as error:
            raise RecordError(f"ledger {path}: cannot be written ({error.strerror})") from error
        self._count = 0
        self._run = provenance.run_id()
        open_attempts: dict[str, None] = {}
        for line in read(path):
            if isinstance(line, Began):
                open_attempts[line.attempt] = None
            else:
                open_attempts.pop(line.attempt, None)
        for attempt in open_attempts:
            self.ended(attempt, "driver lost", "the driver was killed or its machine stopped")

    def began(self, kind: str, problem: str, backends: list[str], machine: str, node: str, pid: int) -> str:
        """Note that an attempt starts; its name."""
        self._count += 1
        attempt = f"{self._run}-{self._count}"
        self._append(Began(attempt, provenance.utc_now(), kind, problem, backends, machine, node, pid))
        return attempt

    def ended(self, attempt: str, how: How, reason: str = "", pid: int = 0) -> None:
        """Note how an attempt ended."""
        self._append(Ended(attempt, provenance.utc_now(), how, reason, pid))

    def close(self) -> None:
        """Leave the folder to the next driver."""
        self._file.close()

    def _append(self, line: Line) -> None:
        try:
            # A driver that was killed may have left a torn line.
            size = self._file.seek(0, os.SEEK_END)
            if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
                self._file.write(b"\n")
            self._file.write(msgspec.json.encode(line) + b"\n")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordError(f"ledger {self._path}: cannot be written ({error.strerror})") from error


def read(path: Path) -> list[Line]:
    """The lines of a ledger in order; torn ones are left out."""
    found: list[Line] = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(_LINE.decode(line))
        except (msgspec.MsgspecError, ValueError):
            continue
    return found

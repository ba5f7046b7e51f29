"""JSON lines that a killed writer may leave torn: how stages keep what they find, and a second survey reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

Row = dict[str, Any]


def append(path: Path, row: Row) -> None:
    """Append one row, which is with the kernel on return; a line that was left torn swallows no other."""
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        file.write(b"\n" * torn + msgspec.json.encode(row) + b"\n")


def read(path: Path) -> list[Row]:
    """The rows that are whole; none where there is no such file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows

"""The cells of one row of CSV, of any length: Python's own reader stops at 128 KiB, and names of kernels don't."""

from __future__ import annotations

import re

_ONE_CELL = re.compile(r'(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))')


def cells(row: str) -> list[str]:
    """The cells of ``row``, quoted or not."""
    return [
        bare if quoted is None else quoted.replace('""', '"')
        for quoted, bare in (match.group(1, 2) for match in _ONE_CELL.finditer(row))
    ]

"""Reads what ``ncu --csv`` writes: the details page (a metric a row) and the raw page (a kernel a row).

Real files hold more than the table: a byte-order mark, the profiled program's own output and ncu's ``==PROF==`` lines
before, after, between and even within its rows, a header that comes again, rows cut short, rows of rules that carry no
metric, and numbers in the manner of the host's locale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rls_bench.errors import ProfileError
from rls_bench.probes import numbers
from rls_bench.probes.csv_cells import cells as cells_of
from rls_bench.probes.ncu_failure import explain
from rls_bench.probes.ncu_metrics import Kernel, in_base_unit
from rls_bench.probes.numbers import Point, Written

# The details page names metrics in words; these are the ones that give a figure of ours.
_IN_WORDS = {
    "Duration": "gpu__time_duration.sum",
    "L2 Hit Rate": "lts__t_sector_hit_rate.pct",
    "DRAM Throughput": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "Achieved Occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
}

# A quoted cell may hold line breaks, but not one before what begins a row: that cell was cut short.
_CELL = r'"(?:[^"\n]|""|\n(?!"\d*","))*"'
# A row begins with its ID, which nothing but another program's words may stand before.
_QUOTED_ROW = re.compile(rf'(?<![",])"(?:ID|\d*)"(?:,{_CELL})+')
_BARE_ROW = re.compile(r"^(?:ID|\d*),[^\n]+$", re.MULTILINE)

Row = dict[str, str]


@dataclass
class _Table:
    """A header, and the rows under it."""

    header: list[str]
    rows: list[Row] = field(default_factory=list)


def read(text: str, point: Point | None = None) -> list[Kernel]:
    """The kernels of one CSV page in the order of their launches.

    ``point`` is the sign before decimals where it is known; else the numbers of the whole page tell.

    Raises ProfileError, with what ncu said and the mend, where the text holds no kernel or its numbers can be read in
    two ways.
    """
    tables = _tables(text)
    if not any(table.rows for table in tables):
        raise explain(text)
    if point is None:
        try:
            point = numbers.point_of(written for table in tables for _, written in _metrics(table))
        except numbers.Undecided as undecided:
            raise ProfileError(
                f"ncu: its numbers follow no one locale: {undecided}; write the file anew with LC_ALL=C and "
                "--print-units base"
            ) from None
    kernels = [kernel for table in tables for kernel in _kernels(table, point)]
    if not kernels:
        raise explain(text)
    return kernels


def _tables(text: str) -> list[_Table]:
    """Every header with its rows; what is neither is somebody's words."""
    kept = "\n".join(
        line for line in text.replace("\ufeff", "").replace("\r\n", "\n").split("\n") if not line.startswith("==")
    )
    found: list[_Table] = []
    for pattern in (_QUOTED_ROW, _BARE_ROW):
        for match in pattern.finditer(kept):
            cells = cells_of(match.group())
            if cells[0] == "ID" and "Kernel Name" in cells:
                found.append(_Table(cells))
            elif found and cells[0] != "ID" and len(cells) > 1:
                header = found[-1].header
                # A row may be shorter than the header.
                found[-1].rows.append(dict(zip(header, _fitted(cells, header), strict=False)))
        if found:
            return found
    return found


def _fitted(cells: list[str], header: list[str]) -> list[str]:
    """``cells`` of which an unquoted kernel's name may have become several, at the commas of its arguments."""
    surplus = len(cells) - len(header)
    if surplus <= 0:
        return cells
    place = header.index("Kernel Name")
    name = ",".join(cells[place : place + surplus + 1])
    if any(name.count(opened) != name.count(closed) for opened, closed in ("()", "<>", "[]")):
        raise ProfileError(
            f"ncu: a row has {len(cells)} cells under {len(header)} headings: {','.join(cells)[:200]!r}; write the "
            "file anew with its cells quoted, as ncu does"
        )
    return [*cells[:place], name, *cells[place + surplus + 1 :]]


def _is_details(table: _Table) -> bool:
    return "Metric Name" in table.header


def _metrics(table: _Table) -> Iterator[tuple[Row, Written]]:
    """Every metric of a table, with its row."""
    if _is_details(table):
        for row in table.rows:
            # Rules have no metric, and a row that was cut short has lost it.
            if name := row.get("Metric Name"):
                yield row, Written(row.get("Metric Value", ""), _IN_WORDS.get(name, name), row.get("Metric Unit", ""))
        return
    # The row under the header has no ID and holds the units.
    units = next((row for row in table.rows if not row["ID"]), {})
    for row in table.rows:
        if row["ID"]:
            for name, value in row.items():
                if "__" in name:
                    yield row, Written(value, name, units.get(name, ""))


def _kernels(table: _Table, point: Point) -> list[Kernel]:
    kernels: dict[object, Kernel] = {}
    for row, written in _metrics(table):
        # A launch takes many rows of the details page, and one of the raw page.
        launch = (row.get("Process ID", ""), row["ID"]) if _is_details(table) else id(row)
        kernel = kernels.setdefault(launch, Kernel(row.get("Kernel Name", ""), row.get("CC", ""), {}))
        value = numbers.number(written.text, point)
        if value is not None and "__" in written.metric:
            kernel.metrics[written.metric] = in_base_unit(value, written.unit)
    return list(kernels.values())

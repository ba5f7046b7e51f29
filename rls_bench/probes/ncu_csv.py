"""Reads what ``ncu --csv`` writes: the details page (a metric a row) and the raw page (a kernel a row).

Real files hold more than the table: a byte-order mark, the profiled program's own output and ncu's ``==PROF==`` lines
before and after it, rows cut short, rows of rules that carry no metric.
"""

from __future__ import annotations

import csv
import math
import re

from rls_bench.probes.ncu_failure import explain
from rls_bench.probes.ncu_metrics import Kernel, in_base_unit

# The details page names metrics in words; these are the ones that give a figure of ours.
_IN_WORDS = {
    "Duration": "gpu__time_duration.sum",
    "L2 Hit Rate": "lts__t_sector_hit_rate.pct",
    "DRAM Throughput": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "Achieved Occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
}
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")

Row = dict[str, str]


def read(text: str) -> list[Kernel]:
    """The kernels of one CSV page in the order of their launches.

    Raises ProfileError, with what ncu said and the mend, where the text holds no kernel.
    """
    header, rows = _table(text)
    kernels = _details(rows) if "Metric Name" in header else _raw(rows)
    if not kernels:
        raise explain(text)
    return kernels


def _table(text: str) -> tuple[list[str], list[Row]]:
    lines = [line for line in text.lstrip("\ufeff").splitlines(keepends=True) if not line.startswith("==")]
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID",') and "Kernel Name" in line), None)
    if start is None:
        raise explain(text)
    header, *rows = csv.reader(lines[start:])
    # A row may be shorter than the header, and the program's last words may follow the table.
    return header, [dict(zip(header, row, strict=False)) for row in rows if len(row) > 1]


def _details(rows: list[Row]) -> list[Kernel]:
    kernels: dict[tuple[str, str], Kernel] = {}
    for row in rows:
        kernel = kernels.setdefault((row.get("Process ID", ""), row["ID"]), _kernel(row))
        _add(kernel, row.get("Metric Name", ""), row.get("Metric Value", ""), row.get("Metric Unit", ""))
    return list(kernels.values())


def _raw(rows: list[Row]) -> list[Kernel]:
    # The row under the header has no ID and holds the units.
    units = next((row for row in rows if not row["ID"]), {})
    kernels = []
    for row in rows:
        if row["ID"]:
            kernels.append(kernel := _kernel(row))
            for name, value in row.items():
                _add(kernel, name, value, units.get(name, ""))
    return kernels


def _kernel(row: Row) -> Kernel:
    return Kernel(row.get("Kernel Name", ""), row.get("CC", ""), {})


def _add(kernel: Kernel, name: str, written: str, unit: str) -> None:
    value = _number(written)
    if value is not None and ("__" in name or name in _IN_WORDS):
        kernel.metrics[_IN_WORDS.get(name, name)] = in_base_unit(value, unit)


def _number(written: str) -> float | None:
    """The number that ncu wrote, with or without thousands separators; None for ``n/a``, words and not-a-number."""
    text = written.strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

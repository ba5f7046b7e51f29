"""Inspections in a file: what ``--json`` writes, and what ``--baseline`` holds a later run against."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rls_bench.errors import InspectionError
from rls_bench.inspector.bars import Bar
from rls_bench.inspector.floors import Prediction
from rls_bench.inspector.inspection import Inspection
from rls_bench.inspector.l2_sweep import Swept
from rls_bench.inspector.tax import Tax

SCHEMA = 1


@dataclass(frozen=True)
class Listing:
    """Everything that one run of the inspector found; ``taxes`` by ``Inspection.key``.

    ``model_floors`` and ``model_l2`` are predictions of a model, not measurements; a baseline leaves them out.
    """

    toolchain: str
    inspections: list[Inspection]
    taxes: dict[str, list[Tax]] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    model_floors: list[Prediction] = field(default_factory=list)
    model_l2: list[Swept] = field(default_factory=list)
    schema: int = SCHEMA


def write(path: Path, listing: Listing) -> None:
    """Write ``listing``, one inspection a line, so that a change of one kernel is a change of few lines."""
    fields = []
    # Sets have no order of their own: the same findings are the same file.
    for name, value in msgspec.to_builtins(listing, order="deterministic").items():
        if isinstance(value, list):
            fields.append(f"{_json(name)}:[\n" + ",\n".join(_json(item) for item in value) + "\n]")
        else:
            fields.append(f"{_json(name)}:{_json(value)}")
    text = "{" + ",\n".join(fields) + "}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InspectionError(f"{path}: cannot be written ({error.strerror})") from error


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def read(path: Path) -> Listing:
    """The listing in ``path``. Raises InspectionError for a file that cannot be read or is of another schema."""
    try:
        listing = msgspec.json.decode(path.read_bytes(), type=Listing)
    except OSError as error:
        raise InspectionError(f"baseline {path}: cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise InspectionError(f"baseline {path}: wanted what `rls-bench inspect --json` writes; {error}") from error
    if listing.schema != SCHEMA:
        raise InspectionError(f"baseline {path}: wanted schema {SCHEMA}; got {listing.schema}")
    return listing


@dataclass(frozen=True)
class Tolerance:
    """Growth that is no regression: registers in number, spills and stack in bytes, instructions a score as a share."""

    registers: int = 8
    spill_bytes: int = 0
    instructions: float = 0.02


def regressions(baseline: Listing, now: Listing, tolerance: Tolerance | None = None, whole: bool = True) -> list[str]:
    """One line for each figure that grew past ``tolerance``, each bar no longer met, and each case that was lost.

    Architectures that this run left out are not compared; with ``whole`` False (a selection was asked for) neither
    are the cases that it left out.
    """
    tolerance = tolerance or Tolerance()
    by_key = {inspection.key: inspection for inspection in now.inspections}
    archs = {inspection.arch for inspection in now.inspections}
    found = []
    for before in baseline.inspections:
        after = by_key.get(before.key)
        if after is None:
            if whole and before.arch in archs:
                found.append(f"{before.key}: in the baseline, and inspected no more")
        elif before.error:
            continue
        elif after.error:
            found.append(f"{before.key}: {after.error}")
        else:
            found += [f"{before.key}: {line}" for line in _grown(before, after, tolerance)]
    met = {(bar.case, bar.name) for bar in baseline.bars if bar.met}
    lost = [bar for bar in now.bars if not bar.met and (bar.case, bar.name) in met]
    return found + [f"{bar.case}: {bar.name} was within {bar.limit}, is {bar.value}" for bar in lost]


def unknown_to(baseline: Listing, now: Listing) -> list[str]:
    """Keys of the cases that ``baseline`` doesn't have: they are held against the bars alone."""
    known = {inspection.key for inspection in baseline.inspections}
    return [inspection.key for inspection in now.inspections if inspection.key not in known]


def _grown(before: Inspection, after: Inspection, tolerance: Tolerance) -> list[str]:
    lines = []
    if after.registers > before.registers + tolerance.registers:
        lines.append(f"registers grew from {before.registers} to {after.registers}")
    if after.spill_bytes > before.spill_bytes + tolerance.spill_bytes:
        lines.append(f"spill bytes grew from {before.spill_bytes} to {after.spill_bytes}")
    if after.stack_bytes > before.stack_bytes + tolerance.spill_bytes:
        lines.append(f"stack bytes grew from {before.stack_bytes} to {after.stack_bytes}")
    if before.hot and not after.hot:
        lines.append("the hot loop is gone")
    elif before.hot and after.hot:
        limit = before.hot.instructions * (1 + tolerance.instructions)
        if not after.hot.instructions <= limit:
            lines.append(
                f"instructions a score grew from {before.hot.instructions:.2f} to {after.hot.instructions:.2f}"
            )
    return lines

"""Whether a difference can be the code's at all: a machine that was busy or held down makes everything slower.

Two witnesses: what a run was told of its machine while it measured, and plain attention, which is torch's own and
which no commit here changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from rls_bench.compare.sources import Source

# Plain attention without steering.
FLOOR = "unsteered"


class Judged(Protocol):
    """The fields of a row that count here."""

    @property
    def verdict(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def machine(self) -> str: ...

    @property
    def ratio(self) -> float | None: ...


def complaints(base: Source, new: Source) -> list[str]:
    """One line for each thing that a side's runs were told of their machine."""
    return [
        f"{name} was measured while {told}" for name, side in (("base", base), ("new", new)) for told in side.warnings
    ]


def moved_floors(rows: Iterable[Judged], base: Source, new: Source) -> dict[str, str]:
    """By machine, where plain attention itself became slower or faster though its versions are the same: how much."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row.backend == FLOOR and row.verdict in ("SLOWER", "FASTER") and row.ratio is not None:
            ratios.setdefault(row.machine, []).append(row.ratio)
    return {machine: _moved(found) for machine, found in ratios.items() if _same_versions(machine, base, new)}


def _moved(ratios: Sequence[float]) -> str:
    middle = sorted(ratios)[len(ratios) // 2]
    return f"plain attention, which no commit changes, took {middle:.2f} × as long: the machine, or how it was measured"


def _same_versions(machine: str, base: Source, new: Source) -> bool:
    one, other = base.machines.get(machine), new.machines.get(machine)
    return (
        one is not None
        and other is not None
        and (one.torch, one.cuda, one.driver)
        == (
            other.torch,
            other.cuda,
            other.driver,
        )
    )

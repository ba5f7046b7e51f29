"""Latency, energy, error and memory side by side: which backends no other one beats in everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from rls_bench.choose.evidence import Cell

Figure = TypeVar("Figure", int, float)


@dataclass(frozen=True)
class Standing:
    """One backend over a regime: latency and energy as multiples of the least, the worst error and the highest peak;
    None where unknown.
    """

    backend: str
    latency: float
    energy: float | None
    error: float | None
    peak_bytes: int | None = None
    on_front: bool = False


def standings(cells: Sequence[Cell], names: Sequence[str]) -> tuple[Standing, ...]:
    """Fastest first. A figure that some backend lacks decides nothing."""
    latency = _multiples([[cell.candidates[name].latency_ns for cell in cells] for name in names])
    joules = [[cell.candidates[name].joules for cell in cells] for name in names]
    energy = _multiples([_known(row) for row in joules])
    errors = [[cell.candidates[name].error for cell in cells] for name in names]
    peaks = [[cell.candidates[name].peak_bytes for cell in cells] for name in names]
    found = [
        Standing(name, time, power, _worst(inexact), _worst(peak))
        for name, time, power, inexact, peak in zip(names, latency, energy, errors, peaks, strict=True)
        if time is not None
    ]
    fields = ("latency", "energy", "error", "peak_bytes")
    figures = [field for field in fields if all(getattr(one, field) is not None for one in found)]
    rows = {one.backend: tuple(getattr(one, field) for field in figures) for one in found}
    front = {
        name
        for name, row in rows.items()
        if not any(_beats(other, row) for rival, other in rows.items() if rival != name)
    }
    marked = [replace(one, on_front=one.backend in front) for one in found]
    return tuple(sorted(marked, key=lambda one: one.latency))


def _worst(figures: Sequence[Figure | None]) -> Figure | None:
    return max(_known(figures), default=None)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """At least as good in everything, and not the same."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _known(figures: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None and math.isfinite(figure)]


def _multiples(rows: Sequence[Sequence[float]]) -> list[float | None]:
    """The geometric mean of each row over the least one; None for a row that lacks a figure."""
    wanted = max(map(len, rows), default=0)
    means = [math.exp(math.fsum(map(math.log, row)) / len(row)) if row and len(row) == wanted else None for row in rows]
    least = min((mean for mean in means if mean is not None), default=1.0)
    return [None if mean is None else mean / least for mean in means]

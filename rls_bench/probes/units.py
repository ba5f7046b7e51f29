"""Figures as a person reads them: in the unit that a figure's name ends with, at a size that fits; records stay raw."""

from __future__ import annotations

_LADDERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "_ns": (1000.0, ("ns", "µs", "ms", "s")),
    "_bytes": (1024.0, ("B", "KiB", "MiB", "GiB", "TiB")),
}
_PLAIN = {
    "_percent": "%",
    "_celsius": "°C",
    "_watts": "W",
    "_mhz": "MHz",
    "_gb_per_s": "GB/s",
    "_tflop_per_s": "TFLOP/s",
    "_flop_per_byte": "FLOP/B",
    "joules_per_call": "J",
}


def written(name: str, value: float | str | None) -> str:
    """``value`` of the figure ``name`` with its unit: ``written("duration_ns", 1250)`` is ``1.25 µs``."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    for ending, (step, units) in _LADDERS.items():
        if name.endswith(ending):
            return _climbed(value, step, units)
    unit = next((unit for ending, unit in _PLAIN.items() if name.endswith(ending)), "")
    return f"{_digits(value)} {unit}".rstrip()


def _climbed(value: float, step: float, units: tuple[str, ...]) -> str:
    place = 0
    # What would be written as 1000 is 1 of the next.
    while place + 1 < len(units) and abs(value) >= step * (1 - 5e-4):
        value, place = value / step, place + 1
    return f"{_digits(value)} {units[place]}"


def _digits(value: float) -> str:
    """Three that mean something, and whole numbers whole."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"

"""One colour and one marker for each backend, the same in every plot and table, told apart by any eye."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# After Wong, Points of view: Color blindness (2011), and seaborn's "colorblind" set; the yellow is darkened for paper.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#a39a00", "#8c6bd8", "#4cc9b0")
GREY = "#8a8a8a"
# A second sign beside the colour, so that neither is needed.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
# Ours have their own in every report.
_KNOWN = (
    "cpu",
    "sdpa-cpu",
    "flex",
    "triton",
    "keyfold",
    "sdpa-math",
    "valuefold",
    "eager",
    "sdpa-efficient",
    "sdpa-cudnn",
)
FLOOR = "unsteered"
# Stands for the colour of text until the page says which that is.
INK = "#24292f"


@dataclass(frozen=True)
class Look:
    """Colour and marker by backend, in the order of a legend."""

    colours: dict[str, str]
    markers: dict[str, str]


def look(backends: Iterable[str]) -> Look:
    """How each of ``backends`` looks: others than ours take what ours leave free; plain attention is grey."""
    present = set(backends)
    known = [name for name in _KNOWN if name in present]
    others = sorted(present - {*_KNOWN, FLOOR})
    taken = {_KNOWN.index(name) for name in known}
    free = [place for place in range(len(COLOURS)) if place not in taken]
    # Past the last colour they repeat, each time with another marker.
    free += range(len(COLOURS), len(COLOURS) + len(others))
    places = {name: _KNOWN.index(name) for name in known} | dict(zip(others, free, strict=False))
    colours = {name: COLOURS[place % len(COLOURS)] for name, place in places.items()}
    markers = {name: MARKERS[(place + place // len(COLOURS)) % len(MARKERS)] for name, place in places.items()}
    if FLOOR in present:
        colours[FLOOR], markers[FLOOR] = GREY, "."
    return Look(colours, markers)

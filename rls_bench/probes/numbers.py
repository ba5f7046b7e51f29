"""Numbers that a profiler wrote for people: in the manner of the host's locale, which the file itself doesn't name.

215,744 is one number in New York and another in Berlin. Which one is meant is decided from a whole file at once, or
not at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Point = Literal[".", ","]

_SPACES = "'’ \u00a0\u202f"
_SIGN = re.compile(f"[.,{_SPACES}]")


def _manner(point: Point, mark: str) -> re.Pattern[str]:
    """Numbers whose decimals follow ``point``: plain, in groups of three set apart by one and the same sign, which may
    be ``mark``, or in India's groups of two before the last.
    """
    threes = rf"[1-9]\d{{0,2}}(?P<mark>[{mark}{_SPACES}])\d{{3}}(?:(?P=mark)\d{{3}})*"
    twos = rf"[1-9]\d?(?:[{mark}]\d\d)+[{mark}]\d{{3}}"
    return re.compile(rf"[-+]?(?:\d+|{threes}|{twos})(?:[{point}]\d+)?(?:[eE][-+]?\d+)?")


_MANNERS: dict[Point, re.Pattern[str]] = {".": _manner(".", ","), ",": _manner(",", ".")}
# What is counted, and so is whole: a duration in its smallest unit, bytes, sectors, instructions.
_WHOLE = frozenset({"ns", "nsecond", "byte", "sector", "inst", "cycle", "warp", "block", "thread"})
_MOST_PERCENT = 101.0


class Written(NamedTuple):
    """A number as it stands in a file, with the metric's name and unit, which may tell what it cannot be."""

    text: str
    metric: str = ""
    unit: str = ""


class Undecided(ValueError):
    """The numbers of a file can be read in two manners, or in none; the message names one."""


def point_of(numbers: Iterable[Written]) -> Point:
    """The sign before the decimals in ``numbers``, all of one file; "." where no number has any sign at all.

    Raises Undecided where both manners remain, or neither does.
    """
    unsure = ""
    first: dict[Point, str] = {}
    for number in numbers:
        possible = _possible(number)
        if len(possible) == 1:
            first.setdefault(possible[0], number.text.strip())
        elif possible and _SIGN.search(number.text.strip()):
            unsure = unsure or number.text.strip()
    if len(first) == 2:
        raise Undecided(f"{first['.']!r} has a decimal point and {first[',']!r} a decimal comma")
    if first:
        return next(iter(first))
    if unsure:
        raise Undecided(
            f"{unsure!r} can be read with a decimal point or with a decimal comma, and no other number tells"
        )
    return "."


def number(text: str, point: Point) -> float | None:
    """``text`` as a number whose decimals follow ``point``; None for ``n/a``, words, and what is not finite."""
    written = text.strip()
    if not _MANNERS[point].fullmatch(written):
        return None
    value = float(_SIGN.sub(lambda sign: "." if sign.group() == point else "", written))
    return value if math.isfinite(value) else None


def _possible(written: Written) -> list[Point]:
    """The manners in which it can be read, less those in which it would count halves or exceed 100 %."""
    values = {point: number(written.text, point) for point in _MANNERS}
    possible = [point for point, value in values.items() if value is not None]
    if len(set(values.values())) < 2:
        # No sign in it, or no number: it tells nothing.
        return [] if len(possible) < 2 else possible
    sensible = [point for point in possible if _makes_sense(written, values[point])]
    return sensible or possible


def _makes_sense(written: Written, value: float | None) -> bool:
    if value is None:
        return False
    if written.unit == "%":
        return value <= _MOST_PERCENT
    if written.unit in _WHOLE and not written.metric.endswith((".avg", ".pct", ".ratio")):
        return value == int(value)
    return True

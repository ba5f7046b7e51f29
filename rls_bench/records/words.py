"""How figures of records read, wherever they are shown."""

from __future__ import annotations


def floor_in_words(floor: float) -> str:
    """As a share; one launch or two bound it by a thousandfold, which only says that they are too few."""
    return f"{floor:.1%}" if floor <= 1 else "over 100%"

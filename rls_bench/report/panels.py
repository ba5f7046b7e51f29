"""Which panels a plot has; known without anything that draws."""

from __future__ import annotations

import pandas as pd

# Families of problems beyond these are in the table alone.
MOST_PANELS = 9


def panels(frame: pd.DataFrame, by: str) -> list[str]:
    """The values of ``by`` that get a panel: those with the most lengths and rows, in their order of appearance."""
    groups = frame.groupby(by, sort=False)
    weight = pd.DataFrame({"lengths": groups["key_length"].nunique(), "rows": groups.size()})
    chosen = set(weight.sort_values(["lengths", "rows"], ascending=False, kind="stable").index[:MOST_PANELS])
    return [value for value in weight.index if value in chosen]


def has_one(panel: pd.DataFrame, column: str) -> bool:
    """Whether a line over ``column`` would be a single point."""
    return bool(panel[column].nunique() == 1)

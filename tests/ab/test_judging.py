"""Pairs of launches into verdicts: what is planted is found, what isn't is not, and looking often costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rls_bench.ab.judging import FEWEST_LAUNCHES, judge


def pairs(factor: float, launches: int, scatter: float = 0.005, cells: int = 6) -> dict[int, list[float]]:
    """Log ratios of ``cells``, the first of which is ``factor`` slower."""
    drawn = scatter * np.random.default_rng(1).standard_normal((cells, launches))
    drawn[0] += math.log(factor)
    return dict(enumerate(drawn.tolist()))


@pytest.mark.parametrize(("factor", "wanted"), [(1.1, "SLOWER"), (0.9, "FASTER"), (1.0, "SAME"), (1.02, "AMBIGUOUS")])
def test_a_cell_is_judged_against_the_threshold(factor: float, wanted: str) -> None:
    found = judge(pairs(factor, 8), 0.02)
    assert found[0].verdict == wanted
    assert found[0].low < found[0].ratio < found[0].high
    assert all(found[cell].verdict == "SAME" for cell in range(1, 6))


def test_too_few_launches_settle_nothing() -> None:
    found = judge(pairs(1.5, FEWEST_LAUNCHES - 1), 0.02)
    assert not any(each.is_settled for each in found.values())
    assert judge({}, 0.02) == {}


def test_more_cells_want_more() -> None:
    """A difference that settles one of six cells is no wonder among six hundred."""
    assert judge(pairs(1.031, 6, cells=6), 0.02)[0].verdict == "SLOWER"
    assert judge(pairs(1.031, 6, cells=600), 0.02)[0].verdict == "AMBIGUOUS"


def test_the_nearest_to_a_verdict_is_the_most_telling() -> None:
    drawn = pairs(1.0, 4, scatter=0.01)
    drawn[1] = [value + math.log(1.03) for value in drawn[0]]
    drawn[2] = [value + math.log(1.02) for value in drawn[0]]
    found = judge(drawn, 0.02)
    assert not found[2].is_settled
    assert found[1].nearness < found[2].nearness

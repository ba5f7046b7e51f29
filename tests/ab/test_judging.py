"""Pairs of launches into verdicts: what is planted is found, what isn't is not, and looking often costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rls_bench.ab import judging
from rls_bench.ab.judging import FEWEST_LAUNCHES, Looks, judge


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
    assert judge(pairs(1.0285, 6, cells=6), 0.02)[0].verdict == "SLOWER"
    assert judge(pairs(1.0285, 6, cells=600), 0.02)[0].verdict == "AMBIGUOUS"


def test_the_nearest_to_a_verdict_is_the_most_telling() -> None:
    drawn = pairs(1.0, 4, scatter=0.01)
    drawn[1] = [value + math.log(1.03) for value in drawn[0]]
    drawn[2] = [value + math.log(1.02) for value in drawn[0]]
    found = judge(drawn, 0.02)
    assert not found[2].is_settled
    assert found[1].nearness < found[2].nearness


def test_launches_that_went_astray_blind_nobody() -> None:
    drawn = pairs(1.05, 30, scatter=0.01)
    for cell, ratios in drawn.items():
        for launch in range(cell, 30, 7):
            ratios[launch] += (-1) ** launch * math.log(1.4)
    found = judge(drawn, 0.02)
    assert found[0].verdict == "SLOWER"
    assert found[0].ratio == pytest.approx(1.05, abs=0.008)
    assert all(found[cell].verdict == "SAME" for cell in range(1, 6))


def test_what_goes_astray_mostly_is_no_accident() -> None:
    drawn = {0: [0.0] * 5 + [math.log(1.4)] * 25, **{cell: pairs(1.0, 30)[cell] for cell in range(1, 6)}}
    assert judge(drawn, 0.02)[0].ratio > 1.3


def test_trimming_gives_the_error_that_yuen_gives() -> None:
    ratios = [*np.random.default_rng(3).standard_normal(18).tolist(), 9.0, -40.0]
    inner, n, h = sorted(ratios)[4:-4], 20, 12
    drawn_in = np.clip(ratios, inner[0], inner[-1])
    values = judging._trimmed(ratios)
    assert np.mean(values) == pytest.approx(np.mean(inner))
    assert np.var(values, ddof=1) / n == pytest.approx((n - 1) * np.var(drawn_in, ddof=1) / (h * (h - 1)))


def test_looks_together_spend_what_may_go_wrong_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[float] = []
    monkeypatch.setattr(judging, "judge", lambda pairs, threshold, part: parts.append(part) or {})
    looks: Looks[int] = Looks(0.02)
    for share in (0.1, 0.12, 0.5, 0.5, 0.99, 1.0, 1.0):
        looks.look({}, share)
    assert min(parts) > 0.0
    assert sum(parts) == pytest.approx(1.0)


def test_a_look_waits_for_more_than_the_last_one_saw() -> None:
    looks: Looks[int] = Looks(0.02)
    assert looks.is_due(0.01)
    looks.look(pairs(1.0, 4), 0.5)
    assert not looks.is_due(0.55)
    assert looks.is_due(0.6)
    looks.look(pairs(1.0, 4), 0.9)
    assert not looks.is_due(0.95)
    assert looks.is_due(1.0)


def test_a_verdict_stays() -> None:
    looks: Looks[int] = Looks(0.02)
    looks.look(pairs(1.1, 8), 0.5)
    before = looks.found[0]
    looks.look(pairs(1.0, 8), 1.0)
    assert before.verdict == "SLOWER"
    assert looks.found[0] == before


def test_an_early_look_wants_more_than_the_last() -> None:
    drawn = pairs(1.029, 6)
    early, late = (Looks[int](0.02) for _ in range(2))
    early.look(drawn, 0.1)
    late.look(drawn, 1.0)
    assert (early.found[0].verdict, late.found[0].verdict) == ("AMBIGUOUS", "SLOWER")


def test_where_much_scatters_a_change_must_be_beyond_doubt_before_it_is_beyond_the_threshold() -> None:
    """With a threshold near zero, what is certain at 5 % only is no verdict."""
    found = judge(pairs(1.005, 6, scatter=0.005), 1e-6)[0]
    assert found.verdict == "AMBIGUOUS"
    assert judge(pairs(1.008, 6, scatter=0.005), 1e-6)[0].verdict == "SLOWER"


def test_a_clock_too_coarse_to_see_any_difference_sees_none() -> None:
    """Ratios that are all alike have no error at all, and are no chance above one."""
    found = judge({0: [0.0] * 4, 1: [0.0] * 4}, 0.02)
    assert [found[cell].verdict for cell in (0, 1)] == ["SAME", "SAME"]

"""What a limit leaves out, and that it is said."""

from __future__ import annotations

import math

from rls_bench.problems.problem import Problem
from rls_bench.runner.forecast import Forecast, Slice, by_arithmetic

PROBLEMS = [Problem(1, 2, 2, 64, 64, 16, 16), Problem(1, 2, 2, 1, 4096, 64, 64)]
FIRST = [Slice(compile=10, oracle=5, check=5, turns=20, least=2), Slice(oracle=30, check=20, turns=40, least=5)]
LATER = [Slice(compile=2, check=3, turns=20, least=2), Slice(check=8, turns=40, least=5)]
FORECAST = Forecast(cells=24, launches=3, start=4, first=FIRST, later=LATER)


def test_everything_fits_in_time_enough() -> None:
    fit = FORECAST.fit(math.inf)
    assert (fit.launches, fit.left_out) == (3, [])
    assert fit.total == 3 * 4 + 20 + 50 + 2 * (5 + 8) + 3 * 60
    assert "leaves out" not in FORECAST.title(1000, PROBLEMS)


def test_launches_are_left_out_before_problems_and_turns_get_what_remains() -> None:
    fit = FORECAST.fit(110)
    assert (fit.launches, fit.left_out) == (2, [])
    assert fit.total == 110
    assert FORECAST.title(110, PROBLEMS).startswith("24 cells × 3 launches: about 110 s: starting 8 s, compiling 12 s")
    assert "--budget 110 leaves out launch 3;" in FORECAST.title(110, PROBLEMS)


def test_an_interval_of_one_problem_is_worth_more_than_a_launch_of_two() -> None:
    fit = FORECAST.fit(90)
    assert (fit.launches, fit.left_out) == (3, [1])
    assert f"leaves out {PROBLEMS[1].title};" in FORECAST.title(90, PROBLEMS)
    # Where there is no room for any interval, one launch of what fits.
    assert (FORECAST.fit(28).launches, FORECAST.fit(28).left_out) == (1, [1])
    assert "leaves out launches 2 to 3, " in FORECAST.title(28, PROBLEMS)


def test_the_problem_that_has_no_room_is_left_out_and_a_later_one_that_has_is_not() -> None:
    forecast = Forecast(24, 1, 4, [FIRST[0], *FIRST[::-1]], [LATER[0], *LATER[::-1]])
    assert forecast.fit(60).left_out == [1]
    assert PROBLEMS[1].title in forecast.title(60, [*PROBLEMS, PROBLEMS[0]])
    # The first is tried whatever it takes.
    assert Forecast(24, 1, 4, FIRST[::-1], LATER[::-1]).fit(30).left_out == [1]


def test_one_problem_is_tried_even_where_none_has_room() -> None:
    fit = FORECAST.fit(20)
    assert (fit.launches, fit.left_out) == (1, [1])
    # It is cut short where it takes longer.
    assert fit.total == 20


def test_a_second_launch_of_a_larger_problem_takes_less_than_the_first_and_more_than_a_small_ones() -> None:
    large = PROBLEMS[1]
    once, again = (by_arithmetic(large, 8, 2, 2, again=each) for each in (False, True))
    assert again.before < once.before
    assert by_arithmetic(PROBLEMS[0], 8, 2, 2, again=False).before < once.before

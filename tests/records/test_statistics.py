"""Intervals: launches are the unit, identical code is not called different, a real difference is found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rls_bench.records import statistics


def launches(
    rng: np.random.Generator, count: int = 3, between: float = 0.01, within: float = 0.01
) -> list[list[float]]:
    """Samples about 1.0 with log-normal scatter between launches and within them."""
    return [list(np.exp(rng.normal(0, between) + rng.normal(0, within, 12))) for _ in range(count)]


def scaled(samples: list[list[float]], factor: float) -> list[list[float]]:
    return [[factor * value for value in launch] for launch in samples]


def test_the_same_samples_always_give_the_same_interval() -> None:
    samples = launches(np.random.default_rng(1))
    assert statistics.median_interval(samples) == statistics.median_interval(samples)


def test_the_estimate_is_the_geometric_mean_of_the_launches_medians() -> None:
    interval = statistics.median_interval([[1.0, 2.0, 300.0], [], [8.0]])
    assert interval.median == pytest.approx(4.0)
    assert interval.low < 4.0 < interval.high


def test_launches_count_and_not_samples() -> None:
    tight = [[1.0] * 50, [1.1] * 50, [1.2] * 50]
    assert statistics.median_interval(tight).half_width > 0.1


@pytest.mark.parametrize("samples", [[[1.0, 1.1, 0.9]], [[1.0]], [[1.0, 1.0], [1.0, 1.0], [1.0]]], ids=str)
def test_one_launch_and_a_clock_that_always_reads_the_same_have_no_interval(samples: list[list[float]]) -> None:
    interval = statistics.median_interval(samples)
    assert interval.median == pytest.approx(1.0)
    assert not interval.is_known
    assert interval.half_width == math.inf
    assert not statistics.ratio_interval(samples, [[1.0], [1.1], [0.9]]).is_known


def test_a_coarse_clock_shows_in_the_interval() -> None:
    """A step of 1 % may have moved every median by half of it, whatever the number of launches."""
    coarse = [[1.0, 1.0, 1.01]] * 20
    assert statistics.blur(coarse) == pytest.approx(math.log(1.01) / 2)
    assert statistics.median_interval(coarse).half_width >= 0.0049
    assert statistics.blur(launches(np.random.default_rng(1))) == 0.0


def test_the_spread_of_a_median_matches_resampling() -> None:
    rng = np.random.default_rng(2)
    samples = np.exp(0.1 * rng.normal(size=11))
    drawn = np.median(np.log(rng.choice(samples, (50_000, 11))), axis=1).std()
    reach = math.log(statistics.within_launch(list(samples)).high) - np.median(np.log(samples))
    # Student's t with 10 degrees of freedom at 95 %.
    assert reach / 2.228 == pytest.approx(drawn, rel=0.02)


@pytest.mark.parametrize("between", [0.001, 0.01, 0.05])
def test_identical_code_is_rarely_called_different(between: float) -> None:
    rng = np.random.default_rng(3)
    intervals = [
        statistics.ratio_interval(launches(rng, 3, between), launches(rng, 3, between), 0.99) for _ in range(600)
    ]
    false_alarms = sum(not interval.low <= 1 <= interval.high for interval in intervals)
    assert false_alarms <= 0.02 * len(intervals)


@pytest.mark.parametrize("count", [3, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(4)
    intervals = [statistics.median_interval(launches(rng, count, 0.03), 0.95) for _ in range(600)]
    assert 0.92 <= sum(interval.low <= 1 <= interval.high for interval in intervals) / 600 <= 0.99


def test_a_slowdown_of_five_percent_is_found() -> None:
    rng = np.random.default_rng(5)
    found = [
        statistics.ratio_interval(launches(rng, 5), scaled(launches(rng, 5), 1.05), 0.99).low > 1 for _ in range(100)
    ]
    assert sum(found) >= 95


def test_labels_of_a_launch_are_averaged_and_runs_are_units() -> None:
    assert statistics.averaged([[1.0, 2.0], [3.0, 4.0, 5.0]]) == [2.0, 3.0, 5.0]
    assert statistics.units([[1.0, 2.0]]) == [1.0, 2.0]
    assert statistics.units([[1.0, 2.0], [3.0, 5.0]]) == [1.5, 4.0]


def test_neighbours_tell_how_far_launches_scatter() -> None:
    """Three launches that agree by luck are no steadier than the run's others, and one launch has their scatter."""
    rng = np.random.default_rng(6)
    cells = {name: list(rng.normal(0, 0.02, 3)) for name in "abcdefgh"} | {"lucky": [0.0, 1e-6, 2e-6], "lone": [0.0]}
    found = statistics.estimates(cells)
    assert found["lucky"].reach(0.95) > 0.01
    assert found["lone"].reach(0.95) > found["lucky"].reach(0.95)
    assert statistics.estimates({"lone": [0.0]})["lone"].reach(0.95) == math.inf


def test_ten_looks_miss_about_as_often_as_one_plain_interval() -> None:
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(400):
        medians = rng.normal(0, 0.01, 12)
        for looks in range(1, 11):
            found = statistics.estimate([[math.exp(value)] for value in medians[: looks + 2]])
            if abs(found.mean) > found.reach(statistics.looked(0.95, looks)):
                missed += 1
                break
    assert missed <= 0.07 * 400


def test_the_same_code_rarely_exceeds_the_noise_floor() -> None:
    rng = np.random.default_rng(7)
    exceeded = 0
    for _ in range(300):
        pairs = [(launches(rng, between=0.02), launches(rng, between=0.02)) for _ in range(7)]
        floor = statistics.noise_floor(pairs[:-1])
        assert floor is not None
        one, twin = (np.mean(statistics.log_medians(side)) for side in pairs[-1])
        exceeded += abs(math.expm1(one - twin)) > floor
    assert exceeded <= 0.07 * 300
    assert statistics.noise_floor([]) is None


def test_processes_that_differ_for_good_raise_the_floor() -> None:
    """Launches that agree to a thousandth, and labels 5 % apart on every problem."""
    pairs = [([[1.0], [1.001], [0.999]], [[sign], [sign * 1.001], [sign * 0.999]]) for sign in (1.05, 0.95, 1.05, 0.95)]
    floor = statistics.noise_floor(pairs)
    assert floor is not None
    assert floor > 0.05


@pytest.mark.parametrize("samples", [[], [[]], [[0.0]], [[-1.0, 1.0]], [[float("nan"), 1.0]], [[float("inf")]]])
def test_samples_that_mean_nothing_are_refused(samples: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        statistics.median_interval(samples)


def test_a_level_is_a_share() -> None:
    with pytest.raises(ValueError, match="level"):
        statistics.median_interval([[1.0, 2.0], [1.5]], level=95)

"""Intervals: launches are the unit, identical code is not called different, a real difference is found."""

from __future__ import annotations

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


def test_few_launches_that_agree_by_luck_do_not_make_a_narrow_interval() -> None:
    lucky = [[0.5, 1.0, 1.5]] * 3
    assert statistics.median_interval(lucky).half_width > 0.1


def test_the_spread_of_a_median_matches_resampling() -> None:
    rng = np.random.default_rng(2)
    ordered = np.sort(rng.normal(size=11))
    drawn = np.median(rng.choice(ordered, (50_000, 11)), axis=1).var()
    assert statistics._median_variance(ordered) == pytest.approx(drawn, rel=0.03)


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


def test_the_noise_floor_is_the_relative_difference_either_way() -> None:
    one, twin = [[1.0], [1.0]], [[1.1], [1.1]]
    assert statistics.noise_floor(one, twin) == pytest.approx(0.1)
    assert statistics.noise_floor(twin, one) == pytest.approx(0.1)


@pytest.mark.parametrize("samples", [[], [[]], [[0.0]], [[-1.0, 1.0]], [[float("nan"), 1.0]], [[float("inf")]]])
def test_samples_that_mean_nothing_are_refused(samples: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        statistics.median_interval(samples)


def test_a_level_is_a_share() -> None:
    with pytest.raises(ValueError, match="level"):
        statistics.median_interval([[1.0, 2.0]], level=95)

import math

import pytest

from rls_bench.evaluation.intervals import least_within_error, of_proportion, over_seeds


def test_seeds_give_students_t():
    interval = over_seeds([1.0, 2.0, 3.0])
    assert interval.mean == pytest.approx(2.0)
    # t(0.975, 2) = 4.3027, standard error 1 / sqrt(3)
    assert interval.high - interval.mean == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert str(interval) == "2.0 [-0.5, 4.5]"


def test_one_seed_has_no_interval():
    assert str(over_seeds([1.5])) == "1.5"


def test_proportions_give_wilsons_interval():
    interval = of_proportion(95, 100)
    assert interval.mean == pytest.approx(95)
    assert (round(interval.low, 1), round(interval.high, 1)) == (88.8, 97.8)


def test_the_least_strength_that_cannot_be_told_from_the_best_is_chosen():
    accuracies = {0.0: 60.0, 1.0: 79.0, 2.0: 85.0, 4.0: 86.0}
    assert least_within_error(accuracies, 1000) == 2.0
    assert least_within_error(accuracies, 100_000) == 4.0
    assert least_within_error(accuracies, 20) == 1.0

"""The search: the right one of 64 commits under known noise, with few builds, and no answer where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rls_bench.ab.judging import FEWEST_LAUNCHES, Looks
from rls_bench.bisect.search import Measured, Ruling, Unbuildable, search
from rls_bench.errors import RlsBenchError

COMMITS = [f"commit-{number}" for number in range(64)]
# Of one launch's log ratio, as two good cells of one run scatter on a quiet machine; the budget pays so many launches.
SCATTER, LAUNCHES = 0.01, 12


class Drawn:
    """Measures by drawing launches until ``ab``'s own rule has a verdict; counts what was built."""

    def __init__(self, culprit: int, slowdown: float, rng: np.random.Generator, broken: tuple[int, ...] = ()) -> None:
        self.culprit, self.slowdown, self.rng, self.broken = culprit, slowdown, rng, broken
        self.built = {COMMITS[0]}

    def __call__(self, candidate: str, threshold: float, effort: float) -> Measured:
        number = COMMITS.index(candidate)
        self.built.add(candidate)
        if number in self.broken:
            raise Unbuildable("it does not compile")
        true = math.log1p(self.slowdown) if number >= self.culprit else 0.0
        ratios: list[float] = []
        looks: Looks[str] = Looks(threshold)
        while True:
            ratios.append(true + SCATTER * self.rng.standard_normal())
            share = min(len(ratios) / (LAUNCHES * effort), 1.0)
            if len(ratios) >= FEWEST_LAUNCHES and looks.is_due(share):
                looks.look({"cell": ratios}, share)
                found = looks.found["cell"]
                if found.is_settled or share == 1.0:
                    return Measured(found.verdict, found.ratio, found.low, found.high)


def test_a_slowdown_of_five_per_cent_is_found_in_twenty_histories() -> None:
    rng = np.random.default_rng(21)
    right, most = 0, 0
    for _ in range(20):
        drawn = Drawn(int(rng.integers(1, 64)), 0.05, rng)
        found = search(COMMITS, drawn, 0.02)
        right += found.first_bad == COMMITS[drawn.culprit]
        most = max(most, len(drawn.built))
    assert right >= 19
    assert most <= 9


@pytest.mark.parametrize("culprit", [1, 2, 31, 32, 62, 63])
def test_every_place_can_be_found(culprit: int) -> None:
    found = search(COMMITS, Drawn(culprit, 0.5, np.random.default_rng(1)), 0.02)
    assert (found.last_good, found.first_bad) == (COMMITS[culprit - 1], COMMITS[culprit])
    assert found.is_certain
    assert found.slowdown.ratio == pytest.approx(1.5, rel=0.05)


def test_two_commits_leave_nothing_to_search() -> None:
    found = search(COMMITS[-2:], lambda *asked: Measured("SLOWER", 1.5), 0.02)
    assert (found.last_good, found.first_bad, len(found.rulings)) == (COMMITS[-2], COMMITS[-1], 1)


def test_what_does_not_build_is_passed_by() -> None:
    # 31 is asked first.
    drawn = Drawn(40, 0.5, np.random.default_rng(1), broken=(31, 32, 20))
    found = search(COMMITS, drawn, 0.02)
    assert found.first_bad == COMMITS[40]
    assert found.is_certain


def test_a_culprit_that_does_not_build_is_one_of_several() -> None:
    found = search(COMMITS, Drawn(40, 0.5, np.random.default_rng(1), broken=(39, 40)), 0.02)
    assert (found.last_good, found.first_bad) == (COMMITS[38], COMMITS[41])
    assert found.skipped == (COMMITS[39], COMMITS[40])
    assert not found.is_certain


def test_what_stays_unclear_is_measured_longer_and_then_said_to_be() -> None:
    efforts: list[float] = []

    def unclear(candidate: str, threshold: float, effort: float) -> Measured:
        if candidate == COMMITS[2]:
            return Measured("SLOWER", 1.21)
        efforts.append(effort)
        return Measured("AMBIGUOUS", 1.15)

    heard: list[Ruling] = []
    found = search(COMMITS[:3], unclear, 0.02, lambda ruling, left: heard.append(ruling))
    assert efforts == [1.0, 2.0, 4.0]
    # The line lies at 1.1.
    assert found.first_bad == COMMITS[1]
    assert not found.is_certain
    assert [ruling.candidate for ruling in heard] == [COMMITS[2], COMMITS[1]]


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda *asked: Measured("SAME", 1.001, 0.99, 1.01), r"wanted commit-63 to be slower .* 1\.001 .*: same"),
        (lambda *asked: Measured("AMBIGUOUS", 1.03), "ambiguous"),
    ],
)
def test_no_slowdown_is_no_search(measure: Callable[..., Measured], words: str) -> None:
    with pytest.raises(RlsBenchError, match=words):
        search(COMMITS, measure, 0.02)


def test_a_bad_one_that_does_not_build_and_one_commit_alone_are_refused() -> None:
    with pytest.raises(RlsBenchError, match="cannot be measured: it does not compile"):
        search(COMMITS, Drawn(40, 0.5, np.random.default_rng(1), broken=(63,)), 0.02)
    with pytest.raises(RlsBenchError, match="one and the same"):
        search(COMMITS[:1], lambda *asked: Measured("SAME", 1.0), 0.02)

"""When a cell has been measured well enough."""

from __future__ import annotations

from itertools import permutations

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question
from rls_bench.runner import journal
from rls_bench.runner.cell import Cell, narrow, race, stopped

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random")


def cell_with(*launches: list[float]) -> Cell:
    cell = Cell("eager", "eager", 0, PROBLEM, ("warm",))
    for number, samples in enumerate(launches, start=1):
        cell.apply(journal.Took("eager", 0, number, "warm", samples, []))
    return cell


@pytest.mark.parametrize("launches", [[[100.0]], [[100.0, 100.0]], [[100.0], [100.0], [100.0]]])
def test_a_few_samples_that_agree_are_no_narrow_interval(launches: list[list[float]]) -> None:
    cell = cell_with(*launches)

    assert not cell.is_narrow(0.01)
    assert stopped(cell, False, interrupted=True) == "interrupted"
    assert stopped(cell, False, interrupted=False) == "budget"


def test_samples_enough_that_agree_are_one() -> None:
    cell = cell_with(*[[100.0 + step, 100.1 + step, 99.9 + step] for step in (0.0, 0.01, 0.02, 0.03, 0.04)])

    assert cell.is_narrow(0.01)
    assert stopped(cell, True, interrupted=True) == "interval"


def test_three_launches_that_agree_by_luck_are_none_unless_the_neighbours_vouch_for_them() -> None:
    lucky = [[100.0 + step, 100.1 + step, 99.9 + step] for step in (0.0, 0.01, 0.02)]
    assert narrow([cell_with(*lucky)], 0.01, 3) == set()
    steady = [cell_with(*lucky) for _ in range(6)]
    assert narrow(steady, 0.01, 3) == set(steady)
    scattered = [[100.0, 100.1, 99.9], [103.0, 103.1, 102.9], [97.0, 97.1, 96.9]]
    assert narrow([cell_with(*lucky), *(cell_with(*scattered) for _ in range(6))], 0.01, 3) == set()


def test_looking_again_costs() -> None:
    """Launches 0.45 % apart, each cell's in an order of its own, are within 1 % at the first look, not at the third."""
    steps = [[99.55, 99.56, 99.54], [100.0, 100.01, 99.99], [100.45, 100.46, 100.44]]
    cells = [cell_with(*order) for order in permutations(steps)]
    assert narrow(cells, 0.01, 3) == set(cells)
    assert narrow(cells, 0.01, 1) == set()


def raced(*turns: tuple[str, int, list[float]]) -> dict[str, Cell]:
    """Cells called best and rival after these turns: label, launch, samples; racing after each round of two."""
    cells = {label: Cell(label, label, 0, PROBLEM, ("warm",)) for label in ("best", "rival")}
    for place, (label, launch, samples) in enumerate(turns):
        cells[label].apply(journal.Took(label, 0, launch, "warm", samples))
        if place % 2:
            race(cells.values(), launch)
    return cells


SLOW, FAST = [180.0, 180.1, 179.9, 180.2, 180.0], [100.0, 100.1, 99.9, 100.2, 100.0]


def test_two_turns_race_a_cell_out_and_one_does_not() -> None:
    once = raced(("best", 1, FAST), ("rival", 1, SLOW))
    assert not once["rival"].raced
    twice = raced(("best", 1, FAST), ("rival", 1, SLOW), ("best", 1, FAST), ("rival", 1, SLOW))
    assert twice["rival"].raced
    assert not twice["best"].raced


def test_a_disturbed_turn_races_nobody_out() -> None:
    disturbed = [2 * ns for ns in FAST]
    cells = raced(("best", 1, disturbed), ("rival", 1, FAST), ("best", 1, FAST), ("rival", 1, FAST))
    assert not cells["best"].raced


def test_a_later_launch_lifts_what_an_earlier_one_marked() -> None:
    first = [("best", 1, FAST), ("rival", 1, SLOW)] * 2
    assert raced(*first)["rival"].raced
    still = [("best", 2, FAST), ("rival", 2, SLOW[:1])] * 2
    assert raced(*first, *still)["rival"].raced
    lifted = raced(*first, ("best", 2, FAST), ("rival", 2, FAST[:1]), ("best", 2, FAST), ("rival", 2, FAST[:1]))
    assert not lifted["rival"].raced
    assert lifted["rival"].wants("warm", 2, 0.01, late=False)


def test_samples_that_scatter_are_none() -> None:
    assert not cell_with([100.0, 120.0, 90.0], [100.0, 130.0, 80.0]).is_narrow(0.01)


def racers(**questions: dict[Question, float]) -> list[Cell]:
    """A cell for each label, with two turns of three samples for each of its questions."""
    cells = []
    for label, taken in questions.items():
        cell = Cell(label, label, 0, PROBLEM, ("graph", "warm"))
        for question, sample in taken.items():
            for _ in range(2):
                cell.apply(journal.Took(label, 0, 1, question, [sample] * 3, []))
        cells.append(cell)
    return cells


def test_what_can_be_captured_races_by_its_graph() -> None:
    # Launches from the host make the first slow, which a graph leaves out.
    cells = racers(launchy={"graph": 100.0, "warm": 900.0}, plain={"graph": 110.0, "warm": 120.0})
    assert race(cells, 1) == []
    assert [cell.main for cell in cells] == ["graph", "graph"]
    cells = racers(slow={"graph": 900.0, "warm": 900.0}, plain={"graph": 110.0, "warm": 120.0})
    assert race(cells, 1) == cells[:1]


def test_beside_one_that_cannot_be_captured_all_race_by_what_they_share() -> None:
    cells = racers(uncaptured={"warm": 130.0}, plain={"graph": 10.0, "warm": 120.0})
    assert race(cells, 1) == []
    assert cells[0].main == "warm"

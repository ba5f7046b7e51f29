"""When a cell has been measured well enough."""

from __future__ import annotations

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question
from rls_bench.runner import journal
from rls_bench.runner.cell import Cell, race, stopped

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
    assert stopped(cell, 0.01, interrupted=True) == "interrupted"
    assert stopped(cell, 0.01, interrupted=False) == "budget"


def test_samples_enough_that_agree_are_one() -> None:
    cell = cell_with([100.0, 100.1, 99.9], [100.0, 100.1, 99.9])

    assert cell.is_narrow(0.01)
    assert stopped(cell, 0.01, interrupted=True) == "interval"


def test_samples_that_scatter_are_none() -> None:
    assert not cell_with([100.0, 120.0, 90.0], [100.0, 130.0, 80.0]).is_narrow(0.01)


def racers(**questions: dict[Question, float]) -> list[Cell]:
    """A cell for each label, with three samples for each of its questions."""
    cells = []
    for label, taken in questions.items():
        cell = Cell(label, label, 0, PROBLEM, ("graph", "warm"))
        for question, sample in taken.items():
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

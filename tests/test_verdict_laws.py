"""The bars that docs/verdict.md states of the verdicts, on records drawn from every law of noise."""

from __future__ import annotations

import pytest

from benchmarks import noise, verdicts

# Whole runs drawn for each row; a share of failures of 1 % shows in two of them.
DRAWS = 200


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", [name for name in verdicts.PARTS if name != "same code"])
def test_every_bar_is_met(part: str) -> None:
    missed = [row for row in verdicts.PARTS[part](DRAWS) if not row.is_met]
    assert missed == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("laws", [noise.STEADY[:8], noise.STEADY[8:]], ids=["first", "rest"])
def test_the_same_code_is_called_the_same_under_every_law(laws: tuple[str, ...]) -> None:
    missed = [row for row in verdicts.same_code(DRAWS, laws) if not row.is_met]
    assert missed == []


def test_a_bar_that_is_missed_shows() -> None:
    """The rules that this project does not follow would fail its own bar, on the same samples."""
    (alarms,) = [
        row for row in verdicts.same_code(3, ("launch1",)) if row == row and "benchstat: same code" in row.what
    ][:1]
    assert alarms.found == 1.0
    assert not verdicts.Row("", "", alarms.found, at_most=0.01).is_met
    assert not verdicts.Row("", "", 0.5, at_least=0.95).is_met
    assert verdicts.Row("", "", 0.5).is_met

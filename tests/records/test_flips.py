"""A winner that changes with the question is told, and one that only seems to is not."""

from __future__ import annotations

from dataclasses import replace

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.records.flips import flips

PROBLEM = Problem(1, 4, 2, 7, 9, 16, 16)


def measured(label: str, warm: float, cold: float, scatter: float = 0.001) -> record.Record:
    return record.Record(
        run="r",
        created="2026-01-01T00:00:00Z",
        machine=Machine("cpu", (), 2, 2, 1 << 30, "Linux", "3.11", "2.13.0"),
        problem=PROBLEM,
        backend=label,
        label=label,
        status="ok",
        agreement=record.Agreement(error=1e-7, floor=1e-7, ratio=1.0, passed=True),
        samples_ns={
            question: [[value * (1 + scatter * launch), value * (1 + scatter * (launch + 1))] for launch in range(3)]
            for question, value in (("warm", warm), ("cold", cold))
        },
    )


def test_a_flip_is_told() -> None:
    (flip,) = flips([measured("a", warm=10.0, cold=30.0), measured("b", warm=20.0, cold=25.0)])
    assert "a is fastest warm, but b is cold" in flip.title


def test_the_same_winner_is_no_flip() -> None:
    assert flips([measured("a", warm=10.0, cold=20.0), measured("b", warm=20.0, cold=25.0)]) == []


def test_a_winner_that_is_none_warm_flips_nowhere() -> None:
    """Warm the two are alike: that one comes out first is luck, and the other may well be the faster cold."""
    alike = [measured("a", warm=10.0, cold=30.0, scatter=0.02), measured("b", warm=10.1, cold=20.0, scatter=0.02)]
    assert flips(alike) == []


def test_a_raced_backend_is_no_winner() -> None:
    rival = replace(measured("b", warm=20.0, cold=25.0), stopped="raced")
    assert flips([measured("a", warm=10.0, cold=30.0), rival]) == []


def test_a_difference_within_the_scatter_is_no_flip() -> None:
    noisy = [measured("a", warm=10.0, cold=25.1, scatter=0.1), measured("b", warm=20.0, cold=25.0, scatter=0.1)]
    assert flips(noisy) == []

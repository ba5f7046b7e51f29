"""Machines that don't give their siblings' results are named; luck and good machines aren't."""

from __future__ import annotations

import drawn_records
import numpy as np

from rls_bench.fleet.suspects import suspects
from rls_bench.records.record import Record

PROBLEMS = [drawn_records.problem(length) for length in (256, 512, 1024, 2048)]


def drawn(seed: int, scale: float = 1.0, **fields: object) -> list[Record]:
    """The records of one machine that takes ``scale`` × the time."""
    rng = np.random.default_rng(seed)
    return [
        drawn_records.record("eager", work, drawn_records.launches(rng, 1e6 * work.key_length * scale), **fields)
        for work in PROBLEMS
    ]


def named(**machines: list[Record]) -> list[str]:
    return [suspect.machine for suspect in suspects(machines)]


def test_siblings_that_agree_are_no_suspects() -> None:
    false = sum(bool(named(a=drawn(3 * seed), b=drawn(3 * seed + 1), c=drawn(3 * seed + 2))) for seed in range(40))
    assert false <= 2


def test_a_machine_that_is_slower_is_one() -> None:
    for seed in range(0, 30, 3):
        assert named(a=drawn(seed), b=drawn(seed + 1), slow=drawn(seed + 2, 1.2)) == ["slow"]


def test_one_that_is_faster_than_all_others_is_one_too() -> None:
    assert named(a=drawn(0), b=drawn(1), fast=drawn(2, 0.8)) == ["fast"]


def test_two_slow_ones_of_five_don_t_make_the_others_look_fast() -> None:
    machines = {"a": drawn(0), "b": drawn(1), "c": drawn(2), "d": drawn(3, 1.2), "e": drawn(4, 1.2)}
    assert named(**machines) == ["d", "e"]


def test_of_two_that_differ_either_may_be_it() -> None:
    found = suspects({"a": drawn(0), "b": drawn(1, 1.2)})
    assert [suspect.machine for suspect in found] == ["a", "b"]
    assert all("another machine would tell" in suspect.reason for suspect in found)


def test_a_machine_that_shares_cells_with_a_slow_one_alone_is_cleared_by_others() -> None:
    machines = {"a": drawn(0), "b": drawn(1)[1:], "slow": drawn(2, 1.2)}
    assert named(**machines) == ["slow"]


def test_a_difference_within_the_noise_floor_is_none() -> None:
    floors = {"noise_floors": {"warm": 0.5}}
    assert named(a=drawn(0, **floors), b=drawn(1, **floors), slow=drawn(2, 1.2, **floors)) == []


def test_a_machine_where_what_is_right_elsewhere_is_wrong_is_one() -> None:
    wrong = [
        drawn_records.record("eager", work, status="wrong", agreement=None, reason="error above the floor")
        for work in PROBLEMS
    ]
    found = suspects({"a": drawn(0), "b": drawn(1), "bad": wrong})
    assert [suspect.machine for suspect in found] == ["bad"]
    assert "is wrong, and ok on a, and 7 differences more" in found[0].reason


def test_what_is_wrong_everywhere_is_the_backend_s_fault() -> None:
    wrong = [drawn_records.record("eager", PROBLEMS[0], status="wrong", agreement=None)]
    assert named(a=wrong, b=wrong, c=wrong) == []


def test_one_machine_has_no_sibling() -> None:
    assert named(a=drawn(0)) == []

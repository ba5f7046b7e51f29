"""What a launch costs the host, held beside an empty kernel's."""

from __future__ import annotations

import math

import pytest
import triton

from benchmarks import launch_cost


@pytest.mark.slow
def test_both_paths_are_launched_and_the_driver_is_put_back() -> None:
    before = triton.runtime.driver._active
    taken_us = launch_cost.measure(rounds=3, burst=5)
    assert triton.runtime.driver._active is before
    assert set(taken_us) == {"empty", "prefill", "decode"}
    assert all(len(taken) == 3 and min(taken) > 0 for taken in taken_us.values())


def test_a_bar_is_met_by_a_number_within_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for ratio, missed in ((1.0, 0), (9.0, 1), (math.nan, 1)):
        taken_us = {"empty": [10.0], "prefill": [10.0 * ratio], "decode": [10.0]}
        monkeypatch.setattr(launch_cost, "measure", lambda taken_us=taken_us: taken_us)
        assert launch_cost.main() == missed

"""Launches, gaps and overhead: their arithmetic, and what torch's profiler sees of a real call."""

from __future__ import annotations

import pytest
import torch

from rls_bench.probes import timeline
from rls_bench.probes.timeline import Span

HOST = Span("call", 0, 1000)


def test_one_launch_after_another() -> None:
    found = timeline.figures([Span("b", 500, 700), Span("a", 100, 400)], HOST)
    assert found == {"launches": 2, "busy_ns": 500, "gap_ns": 100, "host_overhead_ns": 500, "call_ns": 1000}


@pytest.mark.parametrize("other", [Span("b", 200, 300), Span("b", 200, 400), Span("b", 100, 400)])
def test_launches_that_overlap_are_busy_once(other: Span) -> None:
    found = timeline.figures([Span("a", 100, 400), other], HOST)
    assert (found["launches"], found["busy_ns"], found["gap_ns"]) == (2, 300, 0)


def test_a_launch_that_outlasts_the_call_leaves_no_negative_overhead() -> None:
    assert timeline.figures([Span("a", 0, 2000)], HOST)["host_overhead_ns"] == 0


def test_a_call_whose_launches_nobody_saw_has_no_overhead_to_tell() -> None:
    found = timeline.figures([], HOST)
    assert found == {"launches": 0, "busy_ns": None, "gap_ns": None, "host_overhead_ns": None, "call_ns": 1000}


def test_operators_that_a_call_hands_to_torch() -> None:
    query = torch.ones(1, 2, 64, 32)
    # A matrix product calls further operators inside; they are part of the one that was called.
    found = timeline.watch(lambda: torch.matmul(query, query.transpose(-1, -2)).softmax(-1), "cpu")
    assert found["launches"] == 3
    assert 0 < found["busy_ns"] < found["call_ns"]  # type: ignore[operator]
    assert found["host_overhead_ns"] > 0  # type: ignore[operator]


def test_a_call_past_torch_is_seen_as_no_launch() -> None:
    assert timeline.watch(lambda: sum(range(100)), "cpu")["launches"] == 0

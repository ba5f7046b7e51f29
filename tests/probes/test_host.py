"""The host's time a call."""

from __future__ import annotations

import time

import pytest

from rls_bench.backends import registry
from rls_bench.backends.interface import no
from rls_bench.errors import ProbeUnavailable
from rls_bench.probes.host import PROBE
from rls_bench.probes.registry import observe
from rls_bench.problems.problem import Problem


def test_a_call_that_keeps_the_host_busy_shows_beside_torchs_own() -> None:
    def busy() -> None:
        until_ns = time.thread_time_ns() + 3_000_000
        while time.thread_time_ns() < until_ns:
            pass

    found = observe("host", busy, "eager", Problem(2, 4, 2, 3, 17, 16, 16, is_causal=True, has_key_lengths=True))
    assert found["host_ns"] >= 3_000_000
    assert found["sdpa_host_ns"] > 0
    # A busy machine may stretch torch's few microseconds to any length, so nothing is said of which is longer.
    assert found["over_sdpa"] > 0


def test_time_that_the_host_sleeps_is_none_of_its_own() -> None:
    found = observe("host", lambda: time.sleep(0.005), "eager", Problem(1, 1, 1, 1, 4, 8, 8))
    assert found["host_ns"] < 2_500_000


def test_an_interpreters_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = registry.get("triton")
    monkeypatch.setattr(type(backend), "measurable", lambda self: no("runs in an interpreter"))
    with pytest.raises(ProbeUnavailable, match="probe host: triton: runs in an interpreter"):
        PROBE.measure(lambda: None, "triton", Problem(1, 1, 1, 1, 4, 8, 8))

"""Faults that a worker survives: each gets its own status and reason, and no samples. Fatal ones: test_process.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from rls_bench.problems.problem import Problem
from rls_bench.runner import messages
from rls_bench.runner.shared import SharedInputs
from rls_bench.runner.workbench import Workbench

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
PREPARE = messages.Prepare(PROBLEM, timed=True, input_bytes=1 << 20)
SAMPLE = messages.Sample("warm", 3, patience_ns=50_000_000)


def bench(name: str) -> Workbench:
    return Workbench(f"fakes:{name}", SharedInputs(os.memfd_create("inputs")))


@pytest.fixture(autouse=True)
def real_timers() -> Iterator[None]:
    original = time.perf_counter_ns
    yield
    time.perf_counter_ns = original


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("EXIT", "failed", "sys.exit(3)"),
        ("RAISES", "failed", "RuntimeError: no kernel image"),
        ("OUT_OF_MEMORY", "out_of_memory", "memory"),
        ("WRONG", "wrong", "× the floor"),
        ("NOT_A_NUMBER", "wrong", "1 of 512 output elements are not finite"),
        ("UNWRITTEN", "wrong", "never written"),
        ("MUTATING", "wrong", "changed its input key"),
        ("CACHING", "wrong", "doesn't follow new values"),
        ("CACHING_BY_SHAPE", "wrong", "kept from before"),
        ("THREADING", "wrong", "in another thread"),
        ("OVERWRITING", "wrong", "overwrites the one before"),
        ("IN_PLACE", "wrong", "memory of its input query"),
        ("PATCHING", "failed", "time.perf_counter_ns"),
        ("IMPOSTOR", "wrong backend", "wanted a kernel named like cutlass_fmha"),
    ],
)
def test_a_fault_is_named_before_anything_is_timed(name: str, status: str, reason: str) -> None:
    workbench = bench(name)
    reply = workbench.answer(PREPARE)
    assert isinstance(reply, messages.Prepared)
    assert reply.status == status, reply.reason
    assert reason in reply.reason
    sampled = workbench.answer(SAMPLE)
    assert isinstance(sampled, messages.Sampled)
    assert not sampled.samples_ns


def test_a_healthy_backend_is_checked_and_sampled() -> None:
    workbench = bench("HEALTHY")
    prepared, sampled = workbench.answer(PREPARE), workbench.answer(SAMPLE)
    assert isinstance(prepared, messages.Prepared)
    assert isinstance(sampled, messages.Sampled)
    assert prepared.status == sampled.status == "ok", prepared.reason + sampled.reason
    assert prepared.agreement is not None
    assert prepared.agreement.passed
    assert prepared.peak_bytes is not None
    assert any("bmm" in name for name in prepared.kernels)
    assert len(sampled.samples_ns) == 3
    assert sampled.warmup_ns
    assert 0 < sum(sampled.samples_ns) <= sampled.calls_ns <= sampled.ended_ns - sampled.began_ns


def test_a_result_that_changes_once_it_is_timed_is_wrong() -> None:
    workbench = bench("CHEATING")
    assert workbench.answer(PREPARE).status == "ok"  # type: ignore[union-attr]
    reply = workbench.answer(SAMPLE)
    assert isinstance(reply, messages.Sampled)
    assert (reply.status, reply.samples_ns) == ("wrong", [])
    assert "a timed call" in reply.reason


def test_another_process_must_give_the_result_that_agreed() -> None:
    healthy = bench("HEALTHY").answer(PREPARE)
    assert isinstance(healthy, messages.Prepared)
    again = messages.Prepare(PROBLEM, True, 1 << 20, fingerprint=healthy.fingerprint)
    assert bench("HEALTHY").answer(again).status == "ok"  # type: ignore[union-attr]
    reply = bench("WRONG").answer(again)
    assert isinstance(reply, messages.Prepared)
    assert reply.status == "wrong"
    assert "another process" in reply.reason


def test_a_backend_that_cannot_be_measured_gets_agreement_alone() -> None:
    reply = bench("UNMEASURABLE").answer(messages.Prepare(PROBLEM, timed=False, input_bytes=1 << 20))
    assert isinstance(reply, messages.Prepared)
    assert reply.status == "ok"
    assert reply.agreement is not None
    assert reply.agreement.passed
    assert not reply.kernels


def test_a_backend_says_what_it_cannot_do() -> None:
    unavailable = bench("UNAVAILABLE").answer(messages.Introduce([PROBLEM]))
    unsupported = bench("UNSUPPORTED").answer(messages.Introduce([PROBLEM]))
    missing = bench("MISSING").answer(messages.Introduce([PROBLEM]))
    assert isinstance(unavailable, messages.Introduction)
    assert isinstance(unsupported, messages.Introduction)
    assert isinstance(missing, messages.Introduction)
    assert "quantum" in unavailable.available.reason
    assert "prime" in unsupported.supports[0].reason
    assert "cannot be imported" in missing.available.reason


def test_the_cold_question_empties_the_cache_and_costs_more_than_the_call() -> None:
    workbench = bench("HEALTHY")
    workbench.answer(PREPARE)
    reply = workbench.answer(messages.Sample("cold", 2, patience_ns=1))
    assert isinstance(reply, messages.Sampled)
    assert reply.status == "ok", reply.reason
    assert reply.ended_ns - reply.began_ns > reply.calls_ns


def test_a_fault_on_the_device_keeps_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an illegal access every call of CUDA raises, the release of its memory too."""
    workbench = bench("RAISES")

    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    reply = workbench.answer(PREPARE)
    assert (reply.status, reply.reason) == ("failed", "RuntimeError: no kernel image")  # type: ignore[union-attr]
    assert isinstance(workbench.answer(messages.Release()), messages.Released)


def test_what_a_call_takes_on_cuda_has_the_device_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend that runs twice is the quickest, not the one that is queued the quickest."""
    workbench, waits = bench("HEALTHY"), iter([0.0, 0.02])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(next(waits)))
    took_ns = workbench._whole_call_ns(lambda: None, replace(PROBLEM, device="cuda"))
    assert took_ns >= 20_000_000

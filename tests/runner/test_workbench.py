"""Faults that a worker survives: each gets its own status and reason, and no samples. Fatal ones: test_process.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from judged import Judged

from rls_bench.problems.problem import Problem
from rls_bench.runner import messages, workbench

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")


def bench(name: str) -> Judged:
    return Judged(f"fakes:{name}", PROBLEM)


def introduced(name: str) -> messages.Introduction:
    reply = bench(name).bench.answer(messages.Introduce([PROBLEM]), [])
    assert isinstance(reply, messages.Introduction)
    return reply


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
        ("LACKING", "unavailable", "could not compile the kernel"),
        ("DECLINING", "unsupported", "wanted other numbers"),
        ("CROWDED", "unavailable", "no room to write in /scratch/kernel.o"),
        ("OUT_OF_MEMORY", "out_of_memory", "memory"),
        ("WRONG", "wrong", "× the floor"),
        ("NOT_A_NUMBER", "wrong", "of 512 output elements are not finite"),
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
    reply = bench(name).prepare()
    assert reply.status == status, reply.reason
    assert reason in reply.reason


def test_nothing_is_sampled_of_what_was_found_wrong() -> None:
    judged = bench("MUTATING")
    judged.prepare()
    assert judged.sample().samples_ns == []


def test_a_healthy_backend_is_checked_and_sampled() -> None:
    judged = bench("HEALTHY")
    prepared, sampled = judged.prepare(), judged.sample()
    assert prepared.status == sampled.status == "ok", prepared.reason + sampled.reason
    assert prepared.peak_bytes is not None
    assert any("bmm" in name for name in prepared.kernels)
    assert prepared.settings["threads"] == str(torch.get_num_threads())
    assert len(sampled.samples_ns) == len(sampled.handed) == 3
    assert sampled.warmup_ns
    assert 0 < sum(sampled.samples_ns) <= sampled.calls_ns <= sampled.ended_ns - sampled.began_ns


@pytest.mark.parametrize("question", ["warm", "cold"])
def test_results_of_distinct_inputs_are_handed_over_with_what_they_were_of(question: str) -> None:
    judged = bench("HEALTHY")
    judged.prepare()
    for _ in range(3):
        sampled = judged.sample(question, patience_ns=1)
        assert sampled.status == "ok", sampled.reason


@pytest.mark.parametrize("calls", [0, 3])
def test_a_call_on_queries_that_it_never_saw_is_timed_and_right(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A slow machine makes fewer calls before, which would be made up for.
    monkeypatch.setattr(workbench, "_WARM_CALLS", 0)
    judged = bench("HEALTHY")
    judged.prepare()
    judged.sample(patience_ns=1)
    reply = judged.surprise(calls)
    assert reply.status == "ok", reply.reason
    assert reply.unseen_ns > 0
    assert bool(reply.seen_ns) == bool(calls)
    # What is timed afterwards is what it was.
    assert judged.sample(patience_ns=1).status == "ok"


def test_who_is_right_as_long_as_it_has_seen_its_queries_is_wrong_in_the_end() -> None:
    judged = Judged("cheats_in_figures:RIGHT_ON_OLD_QUERIES", PROBLEM)
    assert judged.prepare().status == judged.sample(patience_ns=1).status == "ok"
    assert judged.surprise().status == "wrong"


def test_what_goes_stale_once_warm_is_warm_before_new_queries_come() -> None:
    """Checks, and a sample or two of long calls, are fewer than a kernel needs to have folded its inputs in."""
    judged = Judged("cheats_in_figures:FOLDED_AFTER_TWENTY_CALLS", PROBLEM)
    assert judged.prepare().status == "ok"
    reply = judged.surprise(calls=0)
    assert reply.status == "wrong"
    assert "kept from before" in reply.reason


def test_there_is_no_surprise_for_who_has_prepared_nothing() -> None:
    judged = bench("HEALTHY")
    judged.prepare()
    judged.bench.answer(messages.Release(), [])
    assert judged.surprise().reason == "no problem is prepared"


@pytest.mark.parametrize("name", ["PACKED_BY_SHAPE", "VALUES_PACKED_BY_SHAPE"])
def test_what_was_packed_for_another_set_of_inputs_is_wrong(name: str) -> None:
    judged = Judged(f"cheats_in_figures:{name}", PROBLEM)
    assert judged.prepare().status == "ok"
    reasons = [judged.sample(patience_ns=1).reason for _ in range(2)]
    assert any(reason.startswith("on a second set of inputs") for reason in reasons), reasons


def test_a_result_that_changes_once_it_is_timed_is_wrong() -> None:
    judged = bench("CHEATING")
    assert judged.prepare().status == "ok"
    assert judged.sample().status == "wrong"


def test_a_backend_that_cannot_be_measured_gets_agreement_alone() -> None:
    reply = bench("UNMEASURABLE").prepare(timed=False)
    assert (reply.status, reply.handed) == ("ok", 2)
    assert not reply.kernels


def test_a_backend_says_what_it_cannot_do() -> None:
    assert "quantum" in introduced("UNAVAILABLE").available.reason
    assert "prime" in introduced("UNSUPPORTED").supports[0].reason
    assert "cannot be imported" in introduced("MISSING").available.reason


def test_the_cold_question_empties_the_cache_and_costs_more_than_the_call() -> None:
    judged = bench("HEALTHY")
    judged.prepare()
    reply = judged.sample("cold", 2, patience_ns=1)
    assert reply.status == "ok", reply.reason
    assert reply.ended_ns - reply.began_ns > reply.calls_ns


def test_a_fault_on_the_device_keeps_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an illegal access every call of CUDA raises, the release of its memory too."""
    judged = bench("RAISES")

    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    reply = judged.prepare()
    assert reply.status == "failed"
    assert reply.reason.startswith("RuntimeError: no kernel image")
    assert isinstance(judged.bench.answer(messages.Release(), []), messages.Released)


def test_what_a_call_takes_on_cuda_has_the_device_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend that runs twice is the quickest, not the one that is queued the quickest."""
    workbench, waits = bench("HEALTHY").bench, iter([0.0, 0.02])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(next(waits)))
    took_ns = workbench._whole_call_ns(lambda: None, replace(PROBLEM, device="cuda"))
    assert took_ns >= 20_000_000

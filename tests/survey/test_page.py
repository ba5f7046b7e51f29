"""The page: who wins by what was measured, what is missing, and what went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.records.record import Agreement, Record
from rls_bench.survey import page, rows

MACHINE = Machine("cpu", (), 16, 16, 1 << 37, "Linux", "3.12.1", "2.11.0", gpu_name="NVIDIA H100", gpu_count=1)
PROBLEM = Problem(1, 32, 8, 2048, 2048, 128, 128, dtype="bfloat16", device="cuda", is_causal=True)
RIGHT = Agreement(1e-3, 1e-3, 1.0, True)


def entry(backend: str, probes: dict[str, Any] | None = None, **microseconds: float) -> Record:
    samples: Any = {question: [[1e3 * took] * 5] for question, took in microseconds.items()}
    shared: dict[str, Any] = {"machine": MACHINE, "problem": PROBLEM, "backend": backend, "label": backend}
    return Record("run", "now", status="ok", agreement=RIGHT, samples_ns=samples, probes=probes or {}, **shared)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What a survey on a GPU leaves: the winner by graph is another than by warm."""
    seen = {"roofline": {"peak_percent": 61.0, "bound_by": "compute"}, "nvml": {"joules_per_call": 0.02}}
    seen |= {"model": {"l2_hit_rate_percent": 88.0}}
    entries = [
        entry("triton", seen, graph=110.0, warm=200.0),
        entry("keyfold", graph=150.0, warm=160.0),
        entry("unsteered", graph=100.0, warm=105.0),
        replace(entry("eager"), status="wrong", reason="error is 7 × the floor", agreement=None),
    ]
    for each in entries:
        record.append(tmp_path / "telling.records.jsonl", each)
    ncu = {"l2_hit_rate_percent": 85.5}
    rows.append(tmp_path / "profile.jsonl", {"problem": PROBLEM.title, "backend": "triton", "ncu": ncu})
    for case, status in {"plain": "ok", "eps": "unsupported", "statistics": "wrong"}.items():
        rows.append(
            tmp_path / "agreement.jsonl", {"backend": "flex", "case": case, "status": status, "reason": "far off"}
        )
    rows.append(tmp_path / "stages.jsonl", {"stage": "telling", "status": "timeout", "reason": "", "seconds": 9.0})
    return tmp_path


def test_the_winner_is_the_fastest_by_graph_with_all_that_is_known_of_it(out: Path) -> None:
    (line,) = page.table(out)
    assert (line.problem, line.winner, line.question, line.bound_by) == (PROBLEM.title, "triton", "graph", "compute")
    assert (line.latency_us, line.over_unsteered) == (pytest.approx(110.0), pytest.approx(1.1))
    assert (line.peak_percent, line.l2_hit_percent, line.l2_modelled_percent, line.joules) == (61.0, 85.5, 88.0, 0.02)
    assert page.winner(out, PROBLEM) == "triton"


def test_what_went_wrong_is_told_a_line_each(out: Path) -> None:
    assert page.faults(out) == [
        "stage telling: timeout",
        "flex, statistics: wrong: far off",
        f"eager, {PROBLEM.title}: wrong: error is 7 × the floor",
    ]
    assert page.right(out) == [("flex", 1, 1, 1, "")]


def test_the_page_has_all_of_it(out: Path) -> None:
    text = page.markdown(out)
    assert "NVIDIA H100" in text
    assert f"| {PROBLEM.title} | triton | 110.0 | graph | 1.10 | 61 | compute | 85.5 | 88.0 | 20.00 |" in text
    assert "- stage telling: timeout" in text


def test_without_anything_the_page_says_so(tmp_path: Path) -> None:
    assert page.table(tmp_path) == []
    assert "nothing" in page.markdown(tmp_path)

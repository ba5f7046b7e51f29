"""The summary of many problems says what each one's verdict does."""

from __future__ import annotations

import re

import pytest
from drawn_records import launches, problem, record

from rls_bench.cli import tables
from rls_bench.cli.console import Console
from rls_bench.records.latency import Latencies
from rls_bench.records.record import Record


def groups() -> list[list[Record]]:
    import numpy as np

    rng = np.random.default_rng(0)
    first = [
        record(name, problem(64, name="chat"), launches(rng, cost), steers=name != "unsteered")
        for name, cost in (("cpu", 2e6), ("eager", 2.001e6), ("flex", 9e6), ("unsteered", 1e6))
    ]
    return [first, [record("cpu", problem(128), status="unsupported", reason="no")]]


def test_a_line_a_problem_holds_what_the_verdict_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = groups()
    latencies = Latencies([one for group in found for one in group])
    Console().print(tables.summary(found, 0.01, latencies))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    judged = tables.judged(found[0], 0.01, latencies)
    assert judged is not None
    assert {judged.backend, *judged.tied} == {"cpu", "eager"}
    assert judged.over_floor == pytest.approx(2, rel=0.02)
    (chat,) = [line for line in shown if "chat:" in line]
    assert judged.backend in chat
    assert judged.tied[0] in chat
    assert f"{judged.over_floor:.2f}" in chat
    assert any(line[-3:] == ["none", "was", "timed"] for line in shown)
    verdict = tables.verdict(found[0], 0.01, latencies)
    assert f"fastest correct backend is {judged.backend}, " in verdict
    assert f"(not to be told from {judged.tied[0]})" in verdict
    assert tables.verdict(found[1], 0.01, latencies).endswith("no correct backend was timed")


def test_the_fastest_is_held_against_what_is_taken_today(capsys: pytest.CaptureFixture[str]) -> None:
    found = groups()
    latencies = Latencies([one for group in found for one in group])

    def told(*today: str) -> str:
        Console().print(tables.summary(found, 0.01, latencies, *([today] if today else [])))
        return " ".join(capsys.readouterr().out.split())

    # Torch alone has but eager here.
    assert re.search(r" (0\.99|1\.00|1\.01) eager ", told())
    judged = tables.judged(found[0], 0.01, latencies, ("sdpa-cpu", "flex"))
    assert judged is not None
    assert judged.today == "flex"
    assert judged.over_today == pytest.approx(2 / 9, rel=0.02)
    assert f" {judged.over_today:.2f} flex " in told("sdpa-cpu", "flex")
    assert "× today" in told("keyfold")
    assert tables.judged(found[0], 0.01, latencies, ("keyfold",)).over_today is None  # type: ignore[union-attr]


@pytest.mark.parametrize(("floor", "words"), [(0.042, "noise floor 4.2%: "), (3.2e15, "noise floor over 100%: ")])
def test_a_noise_floor_of_two_launches_is_no_figure(
    floor: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.show(Console(), groups()[0], floor)
    assert words in " ".join(capsys.readouterr().out.split())

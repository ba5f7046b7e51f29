"""From recording to serving in one command, and what it says of the gain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_records import launches, record, write
from typer.testing import CliRunner

from benchmarks import traffic_gain
from rls_bench.cli.app import app
from rls_bench.machines import host
from rls_bench.problems import workload as workloads


def test_a_planted_saving_is_found() -> None:
    rng = np.random.default_rng(0)
    # Both of a turn are slowed alike, by far more than is saved.
    pairs = [(1e9 * slow, 1e9 * slow - 5e7 + 1e6 * rng.standard_normal()) for slow in rng.uniform(1, 3, 15)]
    found, low, high = traffic_gain.saved(pairs)
    assert low <= found <= high
    assert abs(found - 5e7) < 2e6
    assert low > 4e7


def test_passages_are_whole_and_of_many_lengths() -> None:
    for requests in (1, 10, 40):
        found = traffic_gain.passages(requests)
        assert len({*found}) == requests
        assert [len(text) for text in found] == sorted(len(text) for text in found)
        assert len(found[0]) == traffic_gain.SHORTEST
        assert requests == 1 or len(found[-1]) == traffic_gain.LONGEST


def chosen(low: float | None) -> dict[str, Any]:
    totals = [
        {"name": "sdpa-cpu", "time_ns": {"median": 2e9, "low": 1e9, "high": 3e9}, "over_today": None},
        {"name": "policy", "time_ns": None, "over_today": {"median": 0.75, "low": low, "high": 0.9}},
    ]
    return {"machines": [{"workload": {"totals": totals, "verdict": "abstain: one launch"}}]}


def test_the_prediction_is_todays_time_less_the_policys() -> None:
    base, policy, less = traffic_gain.predicted(chosen(0.5), "sdpa-cpu")
    assert (base, policy) == (2e9, 1.5e9)
    assert less == pytest.approx((0.5e9, 0.2e9, 1e9))
    with pytest.raises(SystemExit, match="no prediction: abstain: one launch"):
        traffic_gain.predicted(chosen(None), "sdpa-cpu")


def planted(*words: object) -> str:
    """The chapter's commands in this process, but that a run finds what it was told: eager takes half."""
    if words[0] != "run":
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return result.stdout
    workload, out = (Path(str(words[words.index(name) + 1])) for name in ("--workload", "--out"))
    rng = np.random.default_rng(0)
    costs = {"sdpa-cpu": 2e6, "eager": 1e6}
    records = [
        record(name, one.problem, launches(rng, cost), machine=host.current())
        for one in workloads.read(workload).problems
        for name, cost in costs.items()
    ]
    write(out, records)
    return ""


@pytest.mark.slow
def test_the_loop_closes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_gain, "run", planted)
    monkeypatch.setenv("RLS_BENCH_POLICY", "")
    words = ["--out", str(tmp_path), "--tiny", "--against", "eager", "--most", "99"]
    words += ["--requests", "3", "--tokens", "4", "--turns", "3"]
    assert traffic_gain.main(words) == 0
    printed = capsys.readouterr().out
    # Two layers ask a prefill and three decodes of each request: 8 calls, of 1 ms less each.
    (predicted,) = [line for line in printed.splitlines() if line.startswith("predicted, attention")]
    assert re.search(r"1[56](\.\d)? s +(7\.9\d?|8(\.\d+)?) s +(7\.9\d?|8(\.\d+)?) s  ", predicted), predicted
    assert "measured, whole answers" in printed
    # All that was recorded was measured, so the policy speaks of all.
    assert "auto takes eager for 100%; for 0% the policy is silent" in printed
    assert re.search("the two intervals (meet|do not meet)", printed)
    assert "choose says: the policy saves" in printed
    with pytest.raises(SystemExit, match=r"wanted a folder without trace\.jsonl"):
        traffic_gain.main(words)


@pytest.mark.slow
def test_a_policy_that_is_silent_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic_gain, "run", planted)
    monkeypatch.setenv("RLS_BENCH_POLICY", "")
    words = ["--out", str(tmp_path), "--tiny", "--against", "eager", "--most", "1"]
    assert traffic_gain.main([*words, "--requests", "2", "--tokens", "3", "--turns", "2"]) == 0
    assert "nothing to compare: where the policy is silent" in capsys.readouterr().out

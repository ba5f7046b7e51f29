"""The command: tables, the policy that it writes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import CPU, GPU, launches, problem, record, write
from typer.testing import CliRunner, Result

from rls_bench.cli.app import app
from rls_bench.errors import RecordError
from rls_bench.policy import file as policy_file
from rls_bench.records.record import Record


def records(**fields: object) -> list[Record]:
    import numpy as np

    rng = np.random.default_rng(1)
    costs = {"cpu": 1e6, "sdpa-cpu": 3e6}
    return [record(name, problem(), launches(rng, cost), peak_bytes=2 << 20, **fields) for name, cost in costs.items()]


def call(tmp_path: Path, found: list[Record], *options: str) -> Result:
    return CliRunner().invoke(app, ["choose", str(write(tmp_path / "r.jsonl", found)), *options])


def test_it_says_which_and_writes_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    result = call(tmp_path, records(), "--policy", str(path))
    assert result.exit_code == 0
    assert "fastest that agrees; sdpa-cpu costs" in result.output
    written = policy_file.read(path)
    assert written.validity == policy_file.validity(CPU)
    assert written.commits == ("a" * 40,)
    assert [rule.backends for rule in written.rules] == [("cpu", "sdpa-cpu")]
    assert written.renew.endswith(f"--policy {path}")


def test_an_abstention_is_written_without_backends(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    thin = record("cpu", problem(), [[1e6]])
    result = call(tmp_path, [thin], "--policy", str(path))
    assert "abstain: prefill float32 D64, 1024: cpu was measured in 1 launches" in result.output
    assert policy_file.read(path).rules[0].backends == ()


def test_a_policy_has_a_section_for_each_machine_and_keeps_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    both = call(tmp_path, [*records(), *records(machine=GPU)], "--policy", str(path))
    assert f"wrote {path}, a section for each of 2 machines" in both.output
    assert [found.validity for found in policy_file.read_sections(path)] == [
        policy_file.validity(CPU),
        policy_file.validity(GPU),
    ]
    (tmp_path / "r.jsonl").unlink()
    newer = replace(GPU, driver="999.1")
    again = call(tmp_path, records(machine=newer), "--policy", str(path))
    assert f"wrote {path}; 1 of other machines stay" in again.output
    assert [found.validity for found in policy_file.read_sections(path)] == [
        policy_file.validity(newer),
        policy_file.validity(CPU),
    ]


@pytest.mark.parametrize(("size", "chosen"), [("1MiB", False), ("4 MiB", True), ("3MB", True), ("2097152", True)])
def test_memory_is_a_size(tmp_path: Path, size: str, chosen: bool) -> None:
    output = call(tmp_path, records(), "--max-memory", size).output
    assert ("2 MiB above 1 MiB" in output) is not chosen


def test_who_is_beyond_the_budget_is_told_beside_the_choice(tmp_path: Path) -> None:
    cheap, dear = records()
    output = call(tmp_path, [cheap, replace(dear, peak_bytes=9 << 20)], "--max-memory", "4MiB").output
    assert "choice  next costs" in output
    assert f"beyond the budget: sdpa-cpu: 9 MiB above 4 MiB ({dear.problem.title})" in output
    assert "beyond the budget" not in call(tmp_path, [cheap, dear], "--max-memory", "4MiB").output


def test_the_front_is_drawn(tmp_path: Path) -> None:
    chart = tmp_path / "front.svg"
    result = call(tmp_path, records(), "--chart", str(chart))
    assert result.exit_code == 0, result.output
    assert f"wrote {chart}" in result.output
    drawn = chart.read_text(encoding="utf-8")
    assert all(f"<!-- {word} -->" in drawn for word in ("cpu", "sdpa-cpu", "error", "peak MiB"))
    assert call(tmp_path, records(), "--chart", "front.xyz").exit_code == 2
    silent = call(tmp_path, [record("cpu", problem(), status="unsupported", reason="no")], "--chart", str(chart))
    assert silent.exit_code == 0
    assert "no regime has a figure to draw" in silent.output


def test_wrong_calls(tmp_path: Path) -> None:
    result = call(tmp_path, records(), "--max-memory", "plenty")
    assert result.exit_code == 2
    assert "wanted a size such as 2GiB" in result.output
    assert call(tmp_path, records(), "--objective", "beauty").exit_code == 2
    assert isinstance(call(tmp_path, []).exception, RecordError)

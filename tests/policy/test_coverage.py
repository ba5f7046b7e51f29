"""Which share of traffic a policy covers, and that what it asks to measure covers the rest."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from drawn_records import launches, record, write
from typer.testing import CliRunner, Result

from rls_bench.choose import as_policy, choose, gather
from rls_bench.cli import problem_argument
from rls_bench.cli.app import app
from rls_bench.policy import file as policy_file
from rls_bench.policy.coverage import coverage, to_measure
from rls_bench.policy.file import Policy
from rls_bench.problems import workload as workloads
from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem
from rls_bench.problems.workload import Weighted, Workload


def policy_of(problems: list[Problem]) -> Policy:
    rng = np.random.default_rng(0)
    found = [
        record(name, problem, launches(rng, cost * problem.key_length))
        for problem in problems
        for name, cost in (("cpu", 1e3), ("sdpa-cpu", 2e3))
    ]
    (evidence,) = gather(found)
    return as_policy(evidence, choose(evidence), "latency", Path("policy.json"))


def decode(length: int, words: str = "") -> Problem:
    return parse(f"H9/3 Lq1 Lk{length} D64 {words}")


def test_traffic_is_told_apart_by_what_the_policy_says() -> None:
    policy = policy_of([decode(64), decode(512)])
    calls = {decode(64): 1.0, decode(100): 2.0, decode(513): 3.0, decode(100, "padded"): 4.0}
    found = coverage(policy, calls)
    assert found.measured == {decode(64): 1.0}
    assert found.between == {decode(100): 2.0}
    assert found.outside == {decode(513): 3.0, decode(100, "padded"): 4.0}
    assert found.share(found.outside)[0] == pytest.approx(0.7)
    parts = (found.measured, found.between, found.abstained, found.outside)
    assert sum(found.share(part)[1] for part in parts) == pytest.approx(1)


def test_many_lengths_are_asked_as_few_are() -> None:
    policy = policy_of([decode(64), decode(512)])
    calls = {decode(length): 1.0 for length in range(1, 1000)}
    found = coverage(policy, calls)
    assert set(found.outside) == {problem for problem in calls if not 64 <= problem.key_length <= 512}
    assert set(found.measured) == {decode(64), decode(512)}


def test_an_abstention_covers_nothing() -> None:
    (evidence,) = gather([record("cpu", decode(64), [[1e3]])])
    policy = as_policy(evidence, choose(evidence), "latency", Path("policy.json"))
    assert coverage(policy, {decode(64): 1.0}).abstained == {decode(64): 1.0}


def test_what_is_to_be_measured_covers_the_rest() -> None:
    calls = {decode(length): 1.0 + 99 * (length == 90) for length in range(40, 300)}
    calls |= {parse(f"H9/3 L{length} D64 causal"): 1.0 for length in range(30, 60)}
    calls |= {decode(length, "padded"): 1.0 for length in (7, 9)}
    wanted = to_measure(calls)
    assert decode(90) in wanted
    assert len(wanted) == 7
    assert not coverage(policy_of(wanted), calls).outside
    # Families that take less time wait, rather than being measured in part.
    assert len(to_measure(calls, most=6)) == 5


def test_the_command_names_a_run_that_can_be_pasted(tmp_path: Path) -> None:
    problems = [decode(64), decode(512)]
    policy_file.write(tmp_path / "policy.json", policy_of(problems))
    traffic = tmp_path / "new.toml"
    workloads.write(traffic, Workload((Weighted(decode(64), 3.0), Weighted(decode(1024), 1.0))))

    def call() -> Result:
        words = ["policy", "check", "--workload", str(traffic), "--policy", str(tmp_path / "policy.json")]
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    result = call()
    assert result.exit_code == 0, result.output
    assert "covered: 75.0% of calls" in result.output
    command = next(line for line in result.output.splitlines() if line.startswith("measure next: "))
    words = shlex.split(command.removeprefix("measure next: "))
    assert words[:2] == ["rls-bench", "run"]
    asked = problem_argument.select("cpu", problems=[words[words.index("--problem") + 1]])
    assert asked.problems == [decode(1024)]
    # Once it was measured nothing is left.
    policy_file.write(tmp_path / "policy.json", policy_of([*problems, *asked.problems]))
    assert "covered: 100.0% of calls" in call().output
    assert "measure next" not in call().output


def test_it_knows_the_workload_that_it_was_chosen_for(tmp_path: Path) -> None:
    traffic = tmp_path / "traffic.toml"
    workloads.write(traffic, Workload((Weighted(decode(64), 3.0),)))
    records = write(tmp_path / "r.jsonl", [record("cpu", decode(64), launches(np.random.default_rng(0), 1e3))])
    policy = tmp_path / "policy.json"
    runner = CliRunner()
    chosen = runner.invoke(app, ["choose", str(records), "--workload", str(traffic), "--policy", str(policy)])
    assert chosen.exit_code == 0, chosen.output
    words = ["policy", "check", "--workload", str(traffic), "--policy", str(policy)]
    assert "which is this one" in runner.invoke(app, words).output
    workloads.write(traffic, Workload((Weighted(decode(64), 4.0),)))
    assert "which is another" in runner.invoke(app, words).output

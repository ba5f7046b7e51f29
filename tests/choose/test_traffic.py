"""A workload's time with each backend, by the policy and by the best of each; and how sure their ratios are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_records import launches, problem, record, write
from typer.testing import CliRunner, Result

from rls_bench.choose import choose, gather, on, totals
from rls_bench.cli.app import app
from rls_bench.policy import file as policy_file
from rls_bench.problems import workload as workloads
from rls_bench.problems.problem import Problem
from rls_bench.problems.workload import Weighted, Workload
from rls_bench.records.record import Record

DECODE, LONG = problem(512, query_length=1), problem(4096, query_length=1)
PREFILL = problem(1024, is_causal=True)
# Calls for every 1,000 requests, and nanoseconds a call.
CALLS = {DECODE: 50_000.0, LONG: 10_000.0, PREFILL: 1_000.0}
COSTS = {
    DECODE: {"cpu": 1e5, "sdpa-cpu": 2e5},
    LONG: {"cpu": 4e5, "sdpa-cpu": 6e5},
    PREFILL: {"cpu": 8e6, "sdpa-cpu": 4e6},
}
WORKLOAD = Workload(tuple(Weighted(work, calls) for work, calls in CALLS.items()), "chat")


def records(seed: int = 0, costs: dict[Problem, dict[str, float]] = COSTS, **options: float) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        record(name, work, launches(rng, cost, **options))  # type: ignore[arg-type]
        for work, by_name in costs.items()
        for name, cost in by_name.items()
    ]


def times(seed: int = 0, **options: float) -> dict[str, float]:
    (evidence,) = gather(records(seed, **options))
    traffic = on(evidence, WORKLOAD)
    found = totals(traffic, choose(traffic.evidence), "sdpa-cpu")
    return {total.name: math.exp(total.time.mean) for total in found if total.time}


def test_totals_add_up_calls_times_latency() -> None:
    found = times(between=1e-6, within=1e-6)
    expected = {name: sum(CALLS[work] * COSTS[work][name] for work in CALLS) for name in ("cpu", "sdpa-cpu")} | {
        "policy": 5e9 + 4e9 + 4e9,
        "best of each": 5e9 + 4e9 + 4e9,
    }
    assert found == pytest.approx(expected, rel=1e-4)
    assert list(found) == ["sdpa-cpu", "cpu", "policy", "best of each"]


def test_what_is_not_in_the_workload_weighs_nothing() -> None:
    (evidence,) = gather([*records(), record("cpu", problem(64), [[1e3]] * 3)])
    traffic = on(evidence, replace(WORKLOAD, problems=(*WORKLOAD.problems, Weighted(problem(77), 3.0))))
    assert {cell.problem for cell in traffic.evidence.cells} == set(CALLS)
    assert traffic.missing == (problem(77),)
    assert sum(cell.weight for cell in traffic.evidence.cells) == pytest.approx(13e9, rel=0.02)


def test_regret_is_weighed_by_share_of_time() -> None:
    # Within one length and kind two shapes want other backends, by less than splits a regime.
    narrow, wide = problem(512, query_length=1), problem(512, query_length=1, batch=8)
    costs = {narrow: {"a": 1.000e5, "b": 1.015e5}, wide: {"a": 1.015e6, "b": 1.000e6}}
    (evidence,) = gather(records(costs=costs, between=1e-5, within=1e-5))
    for calls, wanted in (((1e6, 1.0), "a"), ((1.0, 1e6), "b")):
        weighed = Workload((Weighted(narrow, calls[0]), Weighted(wide, calls[1])))
        (found,) = choose(on(evidence, weighed).evidence)
        assert found.order[0] == wanted or wanted in found.tied
        assert found.regret is not None
        assert found.regret < 0.016


def test_a_choice_on_other_launches_costs_at_most_two_percent() -> None:
    regrets = []
    for seed in range(40):
        (evidence,) = gather(records(seed, between=0.02, within=0.02))
        chosen = {
            cell.problem: found.order[0] for found in choose(on(evidence, WORKLOAD).evidence) for cell in found.cells
        }
        held_out = sum(CALLS[work] * COSTS[work][chosen[work]] for work in CALLS)
        regrets.append(held_out / 13e9 - 1)
    assert max(regrets) <= 0.02


def test_intervals_hold_the_true_ratio() -> None:
    held = 0
    for seed in range(100):
        (evidence,) = gather(records(seed, between=0.02))
        traffic = on(evidence, WORKLOAD)
        by_name = {total.name: total for total in totals(traffic, choose(traffic.evidence), "sdpa-cpu")}
        ratio = by_name["cpu"].over(by_name["sdpa-cpu"])
        assert ratio is not None
        interval = ratio.interval()
        held += interval.low <= 17 / 20 <= interval.high
    assert held >= 93


def test_what_both_have_in_common_cancels() -> None:
    (evidence,) = gather(records(between=0.2))
    traffic = on(evidence, WORKLOAD)
    cpu = next(total for total in totals(traffic, choose(traffic.evidence)) if total.name == "cpu")
    own = cpu.over(cpu)
    assert own is not None
    assert (own.mean, own.variance) == (0.0, 0.0)


def test_a_backend_that_cannot_do_all_has_no_total() -> None:
    refused = record("flex", PREFILL, status="unsupported", reason="no causal")
    (evidence,) = gather([*records(), record("flex", DECODE, [[1e4] * 9] * 3), refused])
    traffic = on(evidence, WORKLOAD)
    flex = next(total for total in totals(traffic, []) if total.name == "flex")
    assert flex.time is None
    assert set(flex.lacks) == {"unsupported: no causal", "not measured"}
    policy = next(total for total in totals(traffic, []) if total.name == "policy")
    assert policy.lacks == {"abstains": pytest.approx(1.0)}


def call(tmp_path: Path, found: list[Record], *options: str) -> Result:
    path = tmp_path / "traffic.toml"
    workloads.write(path, WORKLOAD)
    words = ["choose", str(write(tmp_path / "r.jsonl", found)), "--workload", str(path), *options]
    return CliRunner().invoke(app, words, env={"COLUMNS": "300"})


def test_the_command_tells_what_is_saved_and_marks_the_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    result = call(tmp_path, records(), "--today", "sdpa-cpu", "--policy", str(policy))
    assert result.exit_code == 0, result.output
    assert "Time per 1,000 requests" in result.output
    assert "today, sdpa-cpu" in result.output
    assert "the policy saves 3" in result.output
    written = policy_file.read(policy)
    assert written.workload == workloads.read(tmp_path / "traffic.toml").fingerprint
    assert f"--workload {tmp_path / 'traffic.toml'} --policy" in written.renew


def test_the_command_abstains_where_intervals_overlap(tmp_path: Path) -> None:
    costs = {work: {"cpu": 1e5, "sdpa-cpu": 1.002e5} for work in CALLS}
    result = call(tmp_path, records(costs=costs, between=0.01), "--today", "cpu", "--json")
    (machine,) = json.loads(result.output)["machines"]
    # A tie goes to the simpler backend.
    assert {found["backend"] for found in machine["decisions"]} == {"sdpa-cpu"}
    told = machine["workload"]["verdict"]
    assert told.startswith("abstain: the policy cannot be told from today's cpu")
    assert machine["workload"]["totals"][0]["name"] == "cpu"


def test_wrong_calls(tmp_path: Path) -> None:
    assert "none of its 3 problems was measured" in call(tmp_path, [record("cpu", problem(9), [[1.0]])]).output
    assert "--today: wanted one that was measured" in call(tmp_path, records(), "--today", "flex").output
    alone = CliRunner().invoke(app, ["choose", str(tmp_path / "r.jsonl"), "--today", "cpu"])
    assert "--today: wanted beside --workload" in alone.output


def test_a_fingerprint_knows_problems_and_weights_alone() -> None:
    shuffled = Workload(tuple(reversed(WORKLOAD.problems)), "another line")
    assert shuffled.fingerprint == WORKLOAD.fingerprint
    heavier = Workload((Weighted(DECODE, 2.0), *WORKLOAD.problems[1:]))
    assert heavier.fingerprint != WORKLOAD.fingerprint


def test_a_policy_that_chooses_nothing_is_no_reason_to_keep_anything(tmp_path: Path) -> None:
    thin = [record(name, work, [[cost]]) for work, by_name in COSTS.items() for name, cost in by_name.items()]
    result = call(tmp_path, thin, "--today", "sdpa-cpu")
    assert "abstain: no regime has evidence enough" in result.output
    assert "abstains on 100% of the time" in result.output

"""No gate passes on NaN: each asks for what must be shown to hold, and one figure that is none blinds no other."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from drawn_records import problem, record, run, write
from inspector.found import hot_loop, inspection
from judged import Judged
from torch import Tensor

from benchmarks import cpu_bars, host_cost, verdicts
from rls_bench import agreement
from rls_bench.ab import judging
from rls_bench.agreement import conformance, judgement
from rls_bench.backends import registry
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Support
from rls_bench.choose import Cell, decide, gather
from rls_bench.choose.evidence import Candidate, Limits, _breach
from rls_bench.choose.pareto import standings
from rls_bench.choose.regimes import _holds
from rls_bench.compare import Comparison, compare, controls, load
from rls_bench.inspector import bars, baseline
from rls_bench.problems.binding import bind
from rls_bench.problems.draw import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.records.statistics import Estimate
from rls_bench.referee import gradients, truth
from rls_bench.referee.contents import Contents
from rls_bench.runner import cell as runner_cell
from rls_bench.runner import journal, messages, sense, throttle
from rls_bench.steering.sweep import Row, Settings, Sweep
from rls_bench.timing import training

NAN = math.nan


class Sevens(Backend):
    """Seven everywhere, and statistics to match."""

    name, summary = "sevens", "seven everywhere"

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        problem = inputs.problem
        rows = (problem.batch, problem.query_heads, problem.query_length)

        def call() -> object:
            output = torch.full((*rows, problem.value_dim), 7.0, dtype=inputs.query.dtype)
            stats = AttentionStats(*(torch.full(rows, 7.0, dtype=torch.float32) for _ in AttentionStats._fields))
            return (output, stats) if problem.return_stats else output

        return call


def inputs_of(size: float, **options: bool) -> Inputs:
    """Float16 whose eager scores overflow where ``size`` is about 100."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = ((torch.randn(1, 2, 32, 16, generator=generator) * times).half() for times in (size, size, 1.0))
    return bind(query, key, value, torch.randn(32, generator=generator), 1.0, **options)


@pytest.mark.parametrize("size", [1.0, 100.0, 300.0])
def test_seven_is_wrong_also_where_eager_overflows(size: float) -> None:
    verdict = agreement.check(Sevens(), inputs_of(size))
    assert not verdict.passed
    assert verdict.floor is not None
    assert math.isfinite(verdict.floor)
    assert not agreement.check(Sevens(), inputs_of(size, return_stats=True)).passed
    assert agreement.check(registry.get("sdpa-math"), inputs_of(size)).passed
    assert agreement.check(registry.get("cpu"), inputs_of(size, return_stats=True)).passed


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["floor", "exact"])
def test_a_truth_that_is_no_number_judges_nothing(part: str, spoiled: float) -> None:
    inputs = inputs_of(1.0)
    known = judgement.truth(inputs)
    if part == "floor":
        known = replace(known, floor=torch.full_like(known.floor, spoiled))
    else:
        known = replace(known, exact=known.exact._replace(output=torch.full_like(known.exact.output, spoiled)))
    right: Tensor = registry.get("sdpa-math").prepare(inputs)()
    assert not judgement.judge(inputs, right, known=known).passed


class Spoiling(Backend):
    """Right, but for what ``spoils`` names: its statistics, or the gradient of its query."""

    name = summary = "spoiling"

    def __init__(self, spoils: str) -> None:
        self._spoils = spoils

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        if self._spoils == "gradient" and inputs.query.requires_grad:
            inputs.query.register_hook(lambda gradient: gradient * NAN)
        call = registry.get("eager").prepare(inputs)

        def spoilt() -> Any:
            result: Any = call()
            if self._spoils == "statistics" and inputs.problem.return_stats:
                return result[0], AttentionStats(*(figure * NAN for figure in result[1]))
            return result

        return spoilt


def test_no_nan_passes_beside_a_right_output() -> None:
    inputs = inputs_of(1.0, return_stats=True)
    assert agreement.check(Spoiling("nothing"), inputs).passed
    assert "stats.lse" in agreement.check(Spoiling("statistics"), inputs).reason
    small = draw(Problem(1, 2, 2, 8, 8, 16, 16, inputs="random", requires_grad=True))
    assert not conformance.wrong_gradient(Spoiling("nothing"), small)
    assert "gradient of query" in conformance.wrong_gradient(Spoiling("gradient"), small)


@pytest.mark.parametrize("part", ["exact", "plain", "statistics", "plain statistics"])
def test_a_referee_whose_truth_is_no_number_passes_nobody(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, plain = judgement.oracle, truth._plain

    def spoilt_oracle(*arguments: Any) -> Any:
        found = oracle(*arguments)
        return found._replace(**({"output": found.output * NAN} if part == "exact" else {"kl": found.kl * NAN}))

    def spoilt_plain(inputs: Inputs) -> Any:
        output, stats = plain(inputs)
        return (output * NAN, stats) if part == "plain" else (output, stats._replace(kl=stats.kl * NAN))

    asked = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", return_stats=True)
    assert Judged("eager", asked).prepare(thorough=False).status == "ok"
    if part in ("exact", "statistics"):
        monkeypatch.setattr(judgement, "oracle", spoilt_oracle)
    else:
        monkeypatch.setattr(truth, "_plain", spoilt_plain)
    assert Judged("eager", asked).prepare(thorough=False).status == "wrong"


@pytest.mark.parametrize("found", [7.0, NAN, math.inf])
def test_gradients_are_held_to_the_oracle_also_where_eager_has_none(
    found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = gradients._eager
    monkeypatch.setattr(gradients, "_eager", lambda part, rows: [figure * NAN for figure in eager(part, rows)])
    inputs = draw(Problem(1, 2, 2, 8, 8, 16, 16, "float16", inputs="random", requires_grad=True))
    names = list(training.operands(inputs.problem))
    right = gradients._of(gradients._oracle, inputs, torch.float64, names, [(0, 0), (0, 1)])
    judged, contents = gradients.Gradients("salt"), Contents("turn", 0)
    assert not judged.stray({name: gradient.half() for name, gradient in right.items()}, inputs, contents, True)
    for name in names:
        spoilt = {**right, name: torch.full_like(right[name], found)}
        assert f"gradient of {name}" in judged.stray(spoilt, inputs, contents, True)


def compared(tmp_path: Path, spoil: Callable[[Any], Any], slower: dict[int, float]) -> Comparison:
    """Forty cells of which the last has its latency or noise floor ``spoil``ed in new; ``slower`` by cell."""
    base, new = (
        load(write(tmp_path / f"{name}.jsonl", side)) for name, side in (("b", run(1)), ("n", run(2, slower=slower)))
    )
    key, cell = list(new.cells.items())[-1]
    standing = replace(cell.standing, evidence={name: spoil(found) for name, found in cell.timed.items()})
    return compare(base, replace(new, cells={**new.cells, key: cell._replace(standing=standing)}))


@pytest.mark.parametrize("spoilt", [NAN, math.inf])
def test_compare_calls_no_cell_the_same_for_want_of_a_number(tmp_path: Path, spoilt: float) -> None:
    for spoil in (lambda found: found._replace(units=[spoilt] * 3), lambda found: found._replace(floor=spoilt)):
        found = compared(tmp_path, spoil, {0: 1.2})
        (row,) = (row for row in found.rows if row.problem == found.rows[-1].problem and row.verdict == "AMBIGUOUS")
        assert "no number" in row.reason
        # The others are judged as ever.
        assert [row.verdict for row in found.rows].count("SLOWER") == 1
        assert found.exit_code == 1


def test_a_machine_that_drifts_is_seen_beside_a_cell_that_is_no_number() -> None:
    drifting = [[0.05 * launch + 0.001 * cell for launch in range(3)] for cell in range(12)]
    shifted = [0.1] * 12
    for extra in ([], [NAN], [math.inf]):
        lost = [[value] * 3 for value in extra]
        found = controls.control([*drifting, *lost], [*drifting, *lost], [*shifted, *extra])
        assert found.is_adrift
        assert found.shift == pytest.approx(0.1)


@pytest.mark.parametrize("spoilt", [NAN, math.inf])
def test_pairs_that_are_no_number_settle_nothing(spoilt: float) -> None:
    steady = {number: [0.1, 0.1001, 0.0999, 0.1] for number in range(6)}
    found = judging.judge({**steady, 6: [spoilt] * 4}, 0.02)
    assert found[6].verdict == "AMBIGUOUS"
    assert {found[number].verdict for number in range(6)} == {"SLOWER"}


def candidate(latency: float, **figures: Any) -> Candidate:
    return Candidate(Estimate(latency, 1e-8, 2.0), 3, **figures)


@pytest.mark.parametrize("spoilt", [Estimate(NAN, 1e-8, 2.0), Estimate(14.0, NAN, 2.0), Estimate(14.0, 1e-8, NAN)])
def test_nobody_is_chosen_beside_a_rival_whose_latency_is_no_number(spoilt: Estimate) -> None:
    cells = [Cell(problem(), {"cpu": candidate(14.0), "flex": candidate(14.1)})]
    assert decide(cells).backend == "cpu"
    for name in ("cpu", "flex"):
        spoilt_cell = Cell(problem(), {**cells[0].candidates, name: Candidate(spoilt, 3)})
        found = decide([spoilt_cell])
        assert found.backend is None
        assert found.settle
    assert not _holds([Cell(problem(), {"cpu": Candidate(Estimate(NAN, 1e-8, 2.0), 3)})], "latency")


def test_what_is_no_number_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    from rls_bench.choose import evidence

    records = [record(name, problem(), [[1e6], [1.001e6], [0.999e6]]) for name in ("cpu", "flex")]
    monkeypatch.setattr(evidence, "estimates", lambda units, *_: dict.fromkeys(units, Estimate(NAN, NAN, 2.0)))
    (found,) = gather(records)
    assert not found.cells[0].candidates
    assert "no number" in found.cells[0].refused["cpu"]


@pytest.mark.parametrize("objective", ["energy", "error"])
def test_a_figure_that_is_no_number_wins_nothing(objective: str) -> None:
    field = {"energy": "joules", "error": "error"}[objective]
    rivals = {"cpu": candidate(14.0, **{field: 2.0}), "flex": candidate(14.0, **{field: NAN})}
    assert decide([Cell(problem(), rivals)], objective).backend == "cpu"  # type: ignore[arg-type]
    shown = {one.backend: one for one in standings([Cell(problem(), rivals)], ["cpu", "flex"])}
    assert getattr(shown["flex"], objective) is None
    assert _breach(rivals["flex"], Limits(max_error=1e-3))


def test_times_that_are_no_numbers_are_not_believed() -> None:
    sample, handed = (
        messages.Sample("warm", 2, 1, Contents("seed", 0)),
        [messages.Handed(0, 0, 3), messages.Handed(1, 0, 9)],
    )
    for spoilt in (NAN, math.inf):
        reply = messages.Sampled("ok", samples_ns=[5e6, spoilt], handed=handed, calls_ns=10_000_000)
        assert sense.nonsense(sample, reply)
        warmed = msgspec.structs.replace(reply, samples_ns=[5e6, 5e6], warmup_ns=[spoilt])
        assert sense.nonsense(sample, warmed)
        assert not sense.nonsense(sample, msgspec.structs.replace(warmed, warmup_ns=[5e6]))


def test_a_clock_that_is_no_number_is_held_down() -> None:
    watch = throttle.ClockWatch(command=[sys.executable, "-c", ""])
    try:
        watch._readings.append(throttle.Reading(5, NAN, 1500.0))
        assert watch.held_down(0, 10)
    finally:
        watch.stop()


def test_a_cell_whose_interval_is_no_number_is_sampled_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [runner_cell.Cell(str(place), "a", 0, problem(), ("warm",)) for place in range(6)]
    for each in cells:
        for launch in range(1, 5):
            each.apply(journal.Took(each.label, 0, launch, "warm", [1e6 + step for step in range(40)]))
    assert runner_cell.narrow(cells, 0.5, 3) == set(cells)
    monkeypatch.setattr(runner_cell, "estimates", lambda units, *_: dict.fromkeys(units, Estimate(NAN, 1e-8, 2.0)))
    assert runner_cell.narrow(cells, 0.5, 3) == set()


def test_no_bar_is_met_by_what_is_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for bound in ({"at_most": 1.0}, {"at_least": 1.0}):
        assert not verdicts.Row("scenario", "what", NAN, **bound).is_met
        assert cpu_bars.Figure("name", NAN, **bound).verdict == "not met"
    monkeypatch.setattr(host_cost, "measure", lambda size: dict.fromkeys(host_cost.WAYS, [NAN] * 3))
    assert host_cost.main() == 1
    assert "met" not in capsys.readouterr().out.replace("MISSED", "")
    monkeypatch.setattr(
        host_cost, "measure", lambda size: {way: [10.0 if way == "sdpa" else 1.0] for way in host_cost.WAYS}
    )
    assert host_cost.main() == 0
    assert not bars._at_most("bar", inspection(), NAN, 1.0).met
    spoilt = baseline.Listing("triton", [inspection(hot_loops=[hot_loop(NAN)])])
    assert baseline.regressions(baseline.Listing("triton", [inspection()]), spoilt)
    rows = [Row(strength, 1.0, kl) for strength, kl in ((0.0, 0.0), (1.0, NAN), (2.0, 2.0))]
    assert not Sweep(Settings(), rows, {0: rows}).monotone("kl")

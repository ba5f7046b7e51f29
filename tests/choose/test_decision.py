"""Who is chosen, at what regret, and when nobody is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_records import AGREED, CPU, GPU, problem, record

from rls_bench.choose import Limits, choose, gather
from rls_bench.choose.decision import Decision
from rls_bench.records.record import Record


def steady(backend: str, milliseconds: float, length: int = 1024, *, launches: int = 3, **fields: object) -> Record:
    """Launches within 0.2 % of ``milliseconds``; fields that are a problem's go to the problem."""
    samples = [[milliseconds * 1e6 * shift] * 5 for shift in (0.999, 1.0, 1.001)[:launches]]
    kind = {
        name: fields.pop(name)
        for name in ("dtype", "head_dim", "query_heads", "query_length", "batch", "strength")
        if name in fields
    }
    return record(backend, problem(length, **kind), samples, suite="standard", **fields)


def decide(*records: Record, limits: Limits | None = None, objective: str = "latency") -> list[Decision]:
    (evidence,) = gather(records, limits)
    return choose(evidence, objective)  # type: ignore[arg-type]


def test_the_fastest_that_agrees_wins_with_its_margin() -> None:
    wrong = record("triton", problem(), status="wrong", reason="error 3 × the floor")
    (found,) = decide(steady("cpu", 1.0), steady("flex", 1.2), steady("unsteered", 0.1), wrong)
    assert found.backend == "cpu"
    assert found.order == ("cpu", "flex")
    assert found.margin == pytest.approx(0.2, abs=1e-3)
    assert found.regret == found.worst_regret == 0.0
    assert found.why == "fastest that agrees; flex costs 20.0% more"


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"compile_seconds": 0.0}, "compile"),
        ({"compile_seconds": 8.0, "peak_bytes": 1 << 20}, "memory"),
        ({"compile_seconds": 8.0, "peak_bytes": 1 << 30}, "simpler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ties_within_the_noise_are_broken(figures: dict[str, object], why: str) -> None:
    rival = steady("triton", 1.0, compile_seconds=8.0, peak_bytes=1 << 30, noise_floor=0.03)
    (found,) = decide(rival, steady("sdpa-cpu", 1.02, **figures))
    assert found.backend == "sdpa-cpu", why
    assert found.tied == ("triton",)
    (apart,) = decide(rival, steady("sdpa-cpu", 1.04, **figures))
    assert apart.backend == "triton"


def test_a_regime_ends_where_the_winner_flips() -> None:
    records = []
    for length, rival in ((256, 1.5), (512, 1.4), (1024, 0.7), (4096, 0.6)):
        records += [steady("cpu", 1.0, length), steady("flex", rival, length)]
    short, long = decide(*records)
    assert [(found.backend, [cell.problem.key_length for cell in found.cells]) for found in (short, long)] == [
        ("cpu", [256, 512]),
        ("flex", [1024, 4096]),
    ]


def test_regret_is_against_the_best_of_each_problem() -> None:
    records = [
        *(steady(name, cost, query_heads=8) for name, cost in (("cpu", 1.0), ("flex", 1.05))),
        *(steady(name, cost, query_heads=16) for name, cost in (("cpu", 1.018), ("flex", 1.0))),
    ]
    (found,) = decide(*records)
    assert found.backend == "cpu"
    assert found.worst_regret == pytest.approx(0.018, abs=1e-3)
    assert found.regret == pytest.approx(0.009, abs=1e-3)


def test_batches_that_want_other_backends_are_regimes_of_their_own() -> None:
    """No number of launches would make one backend serve both."""
    records = [
        *(steady(name, cost, batch=1) for name, cost in (("cpu", 1.0), ("flex", 1.3))),
        *(steady(name, cost, batch=8) for name, cost in (("cpu", 1.3), ("flex", 1.0))),
    ]
    found = decide(*records)
    assert [(one.backend, one.shape) for one in found] == [("cpu", "B1 H8"), ("flex", "B8 H8")]
    assert found[1].regime == "prefill float32 D64 B8 H8"


def test_problems_of_one_shape_that_disagree_are_beyond_the_help_of_launches() -> None:
    records = [
        *(steady(name, cost, strength=1.0) for name, cost in (("cpu", 1.0), ("flex", 1.3))),
        *(steady(name, cost, strength=2.0) for name, cost in (("cpu", 1.3), ("flex", 1.0))),
    ]
    (found,) = decide(*records)
    assert found.backend is None
    assert "for certain, and no other does better in all" in found.why
    assert found.settle == "no launches do: name a backend for each problem"


def test_kinds_and_head_dims_are_regimes_of_their_own() -> None:
    found = decide(
        steady("cpu", 1.0),
        steady("cpu", 1.0, dtype="bfloat16"),
        steady("cpu", 1.0, head_dim=128),
        steady("cpu", 1.0, query_length=1),
    )
    assert len(found) == 4
    assert all(one.why == "the only one that agrees" for one in found)


def test_too_few_launches_abstain_with_the_run_that_settles_it() -> None:
    (found,) = decide(steady("cpu", 1.0, launches=2), steady("flex", 2.0))
    assert found.backend is None
    assert "2 launches; wanted at least 3" in found.why
    assert found.settle == "rls-bench run --suite standard --backend cpu --backend flex --launches 3"


def test_noisy_rivals_abstain_and_far_ones_do_not() -> None:
    noisy = [[1e6], [1.3e6], [0.8e6]]
    close = [record("cpu", problem(), noisy), record("flex", problem(), noisy)]
    (found,) = decide(*close)
    assert found.backend is None
    assert found.regret_bound is not None
    assert found.regret_bound > 0.1
    (clear,) = decide(close[0], steady("flex", 9.0))
    assert clear.backend == "cpu"


def test_a_tie_within_a_large_noise_floor_abstains() -> None:
    (found,) = decide(steady("cpu", 1.0, noise_floor=0.3), steady("flex", 1.1))
    assert found.backend is None
    assert "30%" in found.why


def test_nobody_right_abstains_with_the_reasons() -> None:
    (found,) = decide(record("cpu", problem(), status="crashed", reason="signal 11"), record("eager", problem()))
    assert found.backend is None
    assert found.why == "no backend can be chosen: cpu crashed: signal 11; eager no warm latency"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_error=1e-3), "error 0.002 above 0.001"),
        (Limits(max_bytes=1 << 20), "2 MiB above 1 MiB"),
    ],
    ids=["error", "memory"],
)
def test_limits_leave_out_with_the_reason(limits: Limits, reason: str) -> None:
    fast = steady("cpu", 1.0, peak_bytes=2 << 20)
    slow = steady("eager", 3.0, peak_bytes=1 << 10, agreement=replace(AGREED, error=1e-4))
    (found,) = decide(fast, slow, limits=limits)
    assert found.backend == "eager"
    assert found.cells[0].refused == {"cpu": reason}
    unknown = replace(slow, peak_bytes=None, agreement=replace(AGREED, error=None))
    (none,) = decide(unknown, limits=limits)
    assert none.backend is None
    assert "not measured" in none.why


def test_energy_and_error_are_objectives_too() -> None:
    fast = steady("cpu", 1.0, probes={"nvml": {"joules_per_call": 9.0}})
    exact = steady("eager", 3.0, probes={"nvml": {"joules_per_call": 5.0}}, agreement=replace(AGREED, error=1e-4))
    assert decide(fast, exact, objective="energy")[0].backend == "eager"
    assert decide(fast, exact, objective="error")[0].backend == "eager"
    assert decide(fast, exact)[0].backend == "cpu"
    (unknown,) = decide(steady("cpu", 1.0), objective="energy")
    assert unknown.why == "no joules: add --probe nvml on a GPU"


def test_the_front_keeps_what_nothing_beats() -> None:
    (found,) = decide(
        steady("cpu", 1.0),
        steady("eager", 3.0, agreement=replace(AGREED, error=1e-4)),
        steady("flex", 4.0, agreement=replace(AGREED, error=1e-3)),
    )
    assert [(one.backend, one.on_front) for one in found.standings] == [("cpu", True), ("eager", True), ("flex", False)]
    assert found.standings[1].latency == pytest.approx(3.0, rel=1e-3)


def test_memory_keeps_a_backend_on_the_front() -> None:
    small, large = (
        steady(name, cost, peak_bytes=size) for name, cost, size in (("eager", 3.0, 1 << 20), ("cpu", 1.0, 2 << 20))
    )
    (found,) = decide(small, large)
    assert [(one.backend, one.peak_bytes, one.on_front) for one in found.standings] == [
        ("cpu", 2 << 20, True),
        ("eager", 1 << 20, True),
    ]
    # Where one backend's is not known, memory decides nothing.
    (found,) = decide(replace(small, peak_bytes=None), large)
    assert [one.on_front for one in found.standings] == [True, False]


def test_machines_and_versions_are_apart_and_twins_together() -> None:
    here, there = steady("cpu", 1.0), steady("cpu", 1.0, machine=GPU)
    newer = steady("cpu", 1.0, machine=replace(CPU, torch="2.14.0"))
    assert len(gather([here, there, newer])) == 3
    (pooled,) = gather([here, replace(here, label="cpu#2"), replace(here, run="run-2")])
    assert pooled.cells[0].candidates["cpu"].launches == 6


def test_a_twin_makes_no_launches() -> None:
    two = steady("cpu", 1.0, launches=2)
    (found,) = decide(two, replace(two, label="cpu#2"), steady("flex", 2.0))
    assert found.backend is None
    assert "2 launches; wanted at least 3" in found.why


@pytest.mark.parametrize("label", ["cpu", "cpu#2"])
def test_a_failure_of_either_label_takes_the_backend_out(label: str) -> None:
    failed = record("cpu", problem(), status="failed", reason="now", label=label)
    for records in ([steady("cpu", 1.0), failed], [failed, steady("cpu", 1.0)]):
        (found,) = decide(*records, steady("flex", 2.0))
        assert found.backend == "flex"


def test_a_later_failure_takes_the_backend_out() -> None:
    failed = record("cpu", problem(), status="failed", reason="now", run="run-2")
    (found,) = decide(steady("cpu", 1.0), steady("flex", 2.0), failed)
    assert found.backend == "flex"


def test_the_newest_commit_speaks() -> None:
    old = steady("cpu", 1.3, run="old", commit="b" * 40)
    (evidence,) = gather([old, steady("cpu", 0.94), steady("flex", 1.0)])
    (found,) = choose(evidence)
    assert (found.backend, found.margin) == ("cpu", pytest.approx(0.064, abs=1e-3))
    assert evidence.older == ("b" * 40,)


def test_one_noisy_run_keeps_no_slower_backend() -> None:
    """Its floor of 8 % is not the other's, and what it adds shows in how far the runs scatter."""
    quiet = [steady("cpu", 0.94, noise_floor=0.005), steady("sdpa-cpu", 1.0, noise_floor=0.005)]
    noisy = [replace(entry, run="noisy", noise_floor=0.08) for entry in quiet]
    (found,) = decide(*quiet, *noisy)
    assert (found.backend, found.tied) == ("cpu", ())


def test_a_tie_goes_by_the_interval_and_shows_what_it_costs() -> None:
    """Launches 3 % apart tell nothing of 2 %; the simpler backend costs 2 % more, and that is said."""
    apart = [[shift * 1e6] for shift in (0.97, 1.0, 1.03)]
    slower = [[1.02 * ns for ns in launch] for launch in apart]
    (found,) = decide(record("cpu", problem(), apart), record("sdpa-cpu", problem(), slower))
    assert (found.order, found.tied) == (("sdpa-cpu", "cpu"), ("cpu",))
    assert found.margin == pytest.approx(-0.02, abs=1e-3)


def test_a_rival_of_one_launch_leaves_the_choice_open() -> None:
    (found,) = decide(steady("cpu", 1.05), steady("flex", 1.0, launches=1))
    assert found.backend is None
    assert "how far flex scatters is not known" in found.why


def test_a_raced_rival_wins_nothing() -> None:
    """Its one sample may have met a quiet moment in a launch that was slow for the others."""
    (found,) = decide(steady("cpu", 1.0), steady("flex", 0.9, launches=1, stopped="raced"))
    assert found.backend == "cpu"


def test_a_raced_rival_agrees_and_is_named() -> None:
    (found,) = decide(steady("cpu", 1.0), steady("flex", 4.0, launches=1, stopped="raced"))
    assert found.why == "fastest that agrees; flex over 1.5 × as slow, beyond doubt"

"""Who measures what: every cell once on each kind, whatever dies on the way, and each fault by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import drawn_records
import pytest
from fake_cluster import BACKENDS, PROBLEMS, FakeCluster, measured, node, order

from rls_bench.errors import RecordError, RlsBenchError
from rls_bench.fleet import conclusion, driver, folder, ledger
from rls_bench.fleet.kinds import Slot
from rls_bench.fleet.words import Hello, Lost, Measured
from rls_bench.runner import Plan

CELLS = len(PROBLEMS) * len(BACKENDS)


def run(
    path: Path, cluster: FakeCluster, asked: driver.Order
) -> tuple[driver.Outcome, folder.Folder, list[ledger.Line]]:
    files, notes = folder.Folder(path), ledger.Ledger(path / "ledger.jsonl")
    try:
        outcome = driver.run(asked, cluster, files, notes)
    finally:
        notes.close()
    return outcome, files, ledger.read(path / "ledger.jsonl")


def cells(path: Path) -> list[str]:
    """Kind, work and backend of every cell's file."""
    names = [file.name.split(".") for file in (path / "cells").glob("*.jsonl")]
    return sorted(f"{kind} {work} {backend}" for kind, _, work, backend, _, _ in names)


def test_each_kind_measures_every_cell_once_and_a_second_run_none(tmp_path: Path) -> None:
    living = [node("a", h100=1), node("b", h100=1), node("c", b200=1)]
    outcome, _, lines = run(tmp_path, FakeCluster(living), order("h100", "b200"))
    assert outcome.missing == {}
    assert outcome.troubles == []
    assert len(cells(tmp_path)) == len(set(cells(tmp_path))) == 2 * CELLS
    assert [line.how for line in lines if isinstance(line, ledger.Ended)] == ["measured"] * 2 * len(PROBLEMS)
    again = FakeCluster(living)
    run(tmp_path, again, order("h100", "b200"))
    assert again.asked == []


def test_what_is_new_is_measured_and_nothing_else(tmp_path: Path) -> None:
    living = [node("a", h100=1)]
    run(tmp_path, FakeCluster(living), order("h100", backends=("eager",)))
    again = FakeCluster(living)
    run(tmp_path, again, order("h100"))
    assert again.asked == [("a", problem.title, ("sdpa-cpu",)) for problem in PROBLEMS]


def test_other_versions_are_other_cells(tmp_path: Path) -> None:
    run(tmp_path, FakeCluster([node("a", h100=1)]), order("h100"))
    newer = replace(drawn_records.CPU, triton="3.9.0")
    again = FakeCluster([node("a", h100=1)], hello=lambda slot: Hello(newer, "cpu", "1.0", "c" * 40, 7))
    run(tmp_path, again, order("h100"))
    assert len(again.asked) == len(PROBLEMS)


def test_several_machines_of_a_kind_measure_the_same(tmp_path: Path) -> None:
    cluster = FakeCluster([node("a", h100=1), node("b", h100=1), node("c", h100=1)])
    run(tmp_path, cluster, order("h100", per_kind=2))
    assert len(cells(tmp_path)) == 2 * CELLS
    assert len({*cluster.asked}) == len(cluster.asked)


@pytest.mark.parametrize("dies_at", range(1, 6))
def test_a_node_that_dies_at_any_moment_costs_nothing(tmp_path: Path, dies_at: int) -> None:
    def kill(cluster: FakeCluster, step: int) -> None:
        if step == dies_at:
            cluster.living = [each for each in cluster.living if each.machine != "a"]

    cluster = FakeCluster([node("a", h100=1), node("b", h100=1)], before_answer=kill)
    outcome, _, lines = run(tmp_path, cluster, order("h100"))
    assert outcome.missing == {}
    assert len(cells(tmp_path)) == len(set(cells(tmp_path))) == CELLS
    began = [line for line in lines if isinstance(line, ledger.Began)]
    ended = {line.attempt: line.how for line in lines if isinstance(line, ledger.Ended)}
    assert {line.attempt for line in began} == {*ended}
    assert all((line.node, line.pid) in (("id-a", 7), ("id-b", 7)) for line in began)


@pytest.mark.parametrize("dies_at", range(1, 6))
def test_a_driver_that_dies_at_any_moment_goes_on(tmp_path: Path, dies_at: int) -> None:
    class Killed(BaseException):
        pass

    def kill(cluster: FakeCluster, step: int) -> None:
        if step == dies_at:
            raise Killed

    living = [node("a", h100=1), node("b", h100=1)]
    first = FakeCluster(living, before_answer=kill)
    with pytest.raises(Killed):
        run(tmp_path, first, order("h100"))
    # As SIGKILL leaves it: a torn file, and an attempt without an end.
    (tmp_path / "cells" / "torn.part").touch()
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(line for line in lines if b'"interrupted"' not in line) + b'{"ev')
    second = FakeCluster(living)
    outcome, _, after = run(tmp_path, second, order("h100"))
    assert outcome.missing == {}
    assert len(cells(tmp_path)) == len(set(cells(tmp_path))) == CELLS
    assert not [*(tmp_path / "cells").glob("*.part")]
    began = {line.attempt for line in after if isinstance(line, ledger.Began)}
    assert began == {line.attempt for line in after if isinstance(line, ledger.Ended)}
    assert not {*first.asked} & {*second.asked}


def test_ctrl_c_keeps_what_is_measured(tmp_path: Path) -> None:
    def press(cluster: FakeCluster, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    outcome, _, lines = run(tmp_path, FakeCluster([node("a", h100=1)], before_answer=press), order("h100"))
    assert outcome.interrupted
    assert len(cells(tmp_path)) == 2 * len(BACKENDS)
    last = lines[-1]
    assert isinstance(last, ledger.Ended)
    assert last.how == "interrupted"


def test_a_kind_that_nobody_has_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(RlsBenchError, match=r"nobody here has b200; there is gpu:h100"):
        run(tmp_path, FakeCluster([node("a", h100=1)]), order("h100", "b200"))
    assert cells(tmp_path) == []


def test_a_kind_that_nobody_has_is_waited_for(tmp_path: Path) -> None:
    cluster = FakeCluster([node("a", h100=1)])
    outcome, _, _ = run(tmp_path, cluster, order("h100", "b200", wait_seconds=0.01))
    assert outcome.troubles == ["b200: nobody had it within 0.01 s; nothing was measured"]
    assert outcome.missing == {"b200": 0}
    assert len(cells(tmp_path)) == CELLS


def test_a_task_that_fails_is_tried_elsewhere(tmp_path: Path) -> None:
    def answer(slot: Slot, plan: Plan) -> driver.Answer:
        return Measured(9, 1, reason="ended with 1: boom") if slot.machine == "a" else measured(plan)

    cluster = FakeCluster([node("a", h100=1), node("b", h100=1)], answer=answer)
    outcome, _, lines = run(tmp_path, cluster, order("h100"))
    assert outcome.missing == {}
    assert {line.reason for line in lines if isinstance(line, ledger.Ended) and line.how == "failed"} == {
        "ended with 1: boom"
    }


def test_a_worker_that_crashes_each_time_is_given_up_by_name(tmp_path: Path) -> None:
    def answer(slot: Slot, plan: Plan) -> driver.Answer:
        return Lost("its process died") if plan.problems[0] == PROBLEMS[1] else measured(plan)

    cluster = FakeCluster([node("a", h100=1), node("b", h100=1)], answer=answer)
    outcome, _, lines = run(tmp_path, cluster, order("h100", retries=2))
    assert outcome.missing == {"h100": len(BACKENDS)}
    (trouble,) = outcome.troubles
    assert f"{PROBLEMS[1].title} is given up after 3 attempts" in trouble
    assert "its process died" in trouble
    began = [line for line in lines if isinstance(line, ledger.Began) and line.problem == PROBLEMS[1].title]
    assert len(began) == 3
    assert {line.machine for line in began} == {"a", "b"}


def test_who_failed_tries_again_where_the_others_are_done(tmp_path: Path) -> None:
    failures = {"a": 1}

    def answer(slot: Slot, plan: Plan) -> driver.Answer:
        if failures.get(slot.machine, 0) and plan.problems[0] == PROBLEMS[0]:
            failures[slot.machine] -= 1
            return Measured(9, 1, reason="ended with 1: once")
        return measured(plan)

    cluster = FakeCluster([node("a", h100=1), node("b", h100=1)], answer=answer)
    outcome, _, _ = run(tmp_path, cluster, order("h100", per_kind=2))
    assert outcome.missing == {}
    assert len(cells(tmp_path)) == 2 * CELLS


def test_a_second_machine_that_never_comes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    outcome, _, _ = run(tmp_path, FakeCluster([node("a", h100=1)]), order("h100", per_kind=2, wait_seconds=0.01))
    assert outcome.missing == {"h100": CELLS}


def test_a_machine_that_fails_at_everything_is_asked_no_more(tmp_path: Path) -> None:
    cluster = FakeCluster([node("a", h100=1)], answer=lambda slot, plan: Measured(9, 1, reason="ended with 1: boom"))
    outcome, _, _ = run(tmp_path, cluster, order("h100", retries=5))
    assert len(cluster.asked) == 3
    assert any("3 tasks failed in a row" in trouble for trouble in outcome.troubles)
    assert outcome.missing == {"h100": CELLS}


def test_records_of_other_work_are_no_answer(tmp_path: Path) -> None:
    wrong = measured(Plan(PROBLEMS[2:], [*BACKENDS]))
    cluster = FakeCluster([node("a", h100=1)], answer=lambda slot, plan: wrong)
    outcome, _, _ = run(tmp_path, cluster, order("h100", retries=0))
    assert outcome.missing == {"h100": CELLS - len(BACKENDS)}


def test_a_device_that_cannot_start_is_named(tmp_path: Path) -> None:
    cluster = FakeCluster([node("a", h100=1)], hello=lambda slot: Lost("no torch here"))
    outcome, _, _ = run(tmp_path, cluster, order("h100"))
    assert "h100 on a: no torch here" in outcome.troubles


def test_two_drivers_do_not_share_a_folder(tmp_path: Path) -> None:
    first = ledger.Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(RecordError, match="another fleet run works in this folder"):
        ledger.Ledger(tmp_path / "ledger.jsonl")
    first.close()
    ledger.Ledger(tmp_path / "ledger.jsonl").close()


def test_the_verdict_leaves_a_suspect_out_and_says_what_differs(tmp_path: Path) -> None:
    def hello(slot: Slot) -> driver.Answer:
        machine = replace(drawn_records.CPU, triton="3.5.0" if slot.machine == "old" else "3.7.1")
        return Hello(machine, "cpu", "1.0", "c" * 40, 7)

    def answer(slot: Slot, plan: Plan) -> driver.Answer:
        return measured(plan, 1.2 if slot.machine == "slow" else 1.0)

    living = [node(name, h100=1) for name in ("a", "b", "slow", "old")]
    cluster = FakeCluster(living, answer=answer, hello=hello)
    outcome, files, _ = run(tmp_path, cluster, order("h100", per_kind=4))
    found = conclusion.conclude(files, outcome.hellos)
    assert [suspect.machine for suspect in found.suspects["h100"]] == ["slow"]
    assert "1.20 ×" in found.suspects["h100"][0].reason
    assert found.differences == ["h100: triton differs: 3.5.0 on old; 3.7.1 on a, b, slow"]
    assert len(found.records["h100"]) == 3 * CELLS
    assert len(files.verdict.read_bytes().splitlines()) == 3 * CELLS

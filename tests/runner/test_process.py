"""A worker's death, silence and offspring, seen from the coordinator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from judged import CONTENTS

from rls_bench.problems.problem import Problem
from rls_bench.referee import pool
from rls_bench.runner import messages
from rls_bench.runner.nursery import Nursery
from rls_bench.runner.process import NurseryLost, Worker, WorkerLost, environment

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One for all tests but the one that ends it: to import torch takes longer than most of them."""
    found = Nursery(environment())
    yield found
    found.stop()


@contextmanager
def started(name: str, nursery: Nursery | None) -> Iterator[Worker]:
    worker = Worker(f"fakes:{name}", nursery)
    try:
        assert isinstance(worker.ask(messages.Introduce([PROBLEM]), 60), messages.Introduction)
        yield worker
    finally:
        worker.stop()


def prepare(worker: Worker, timeout_seconds: float = 60) -> messages.Prepared:
    memory, layout = pool.fill(PROBLEM, "salt", excerpt=False)
    try:
        reply = worker.ask(messages.Prepare(layout, CONTENTS, True, 1 << 20), timeout_seconds, [memory])
    finally:
        os.close(memory)
    assert isinstance(reply, messages.Prepared)
    return reply


forked_or_not = pytest.mark.parametrize("forked", [True, False], ids=["forked", "from nothing"])


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@forked_or_not
@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("CRASH", "crashed", "SIGSEGV"),
        ("KILLED", "out_of_memory", "SIGKILL"),
        ("HARD_EXIT", "crashed", "exited with code 3"),
        ("DEVICE_FAULT", "crashed", "code 1: .*an illegal memory access was encountered$"),
    ],
)
def test_a_death_is_read_off_the_exit_status(
    nursery: Nursery, name: str, status: str, reason: str, forked: bool
) -> None:
    with started(name, nursery if forked else None) as worker, pytest.raises(WorkerLost, match=reason) as lost:
        prepare(worker)
    assert lost.value.status == status


def test_a_worker_that_does_not_answer_is_killed(nursery: Nursery) -> None:
    with started("HANG", nursery) as worker:
        began = time.monotonic()
        with pytest.raises(WorkerLost, match=r"no answer within 0\.5 s") as lost:
            prepare(worker, 0.5)
        assert lost.value.status == "timeout"
        assert time.monotonic() - began < 10
        assert not alive(worker.pid)


@pytest.mark.parametrize("name", ["FORKING", "LINGERING"])
def test_a_forked_child_cannot_answer_and_does_not_outlive_its_parent(nursery: Nursery, name: str) -> None:
    with started(name, nursery) as worker:
        reply = prepare(worker)
        assert reply.status == "failed", reply.reason
        assert "left a child process behind" in reply.reason
        children = [int(word) for word in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]
        worker.stop()
        deadline = time.monotonic() + 5
        while any(map(alive, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children or name == "FORKING"
        assert not any(map(alive, children))


@forked_or_not
def test_a_backend_gets_the_variables_that_it_wants(nursery: Nursery, forked: bool) -> None:
    with started("WANTING", nursery if forked else None) as worker:
        reply = prepare(worker)
        assert reply.status == "ok", reply.reason


def test_forked_workers_are_processes_of_their_own_and_end_with_their_nursery() -> None:
    nursery = Nursery(environment())
    one, other = (Worker("fakes:HEALTHY", nursery) for _ in range(2))
    for worker in (one, other):
        assert isinstance(worker.ask(messages.Introduce([PROBLEM]), 60), messages.Introduction)
    assert one.pid != other.pid
    assert prepare(one).status == "ok"
    one.stop()
    assert prepare(other).status == "ok"
    nursery.stop()
    # Whoever ended the nursery, it wasn't this worker's fault.
    with pytest.raises(NurseryLost):
        prepare(other)
    # Nobody forks any more, so a worker starts from nothing.
    late = Worker("fakes:HEALTHY", nursery)
    assert isinstance(late.ask(messages.Introduce([PROBLEM]), 60), messages.Introduction)
    late.stop()


def test_noise_on_standard_output_disturbs_nothing_and_is_told(
    nursery: Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    with started("NOISY", nursery) as worker:
        reply = prepare(worker)
        assert reply.status == "ok", reply.reason
        assert "to standard output" in reply.noise
    assert capfd.readouterr().out == ""


def test_a_worker_whose_coordinator_is_gone_ends(nursery: Nursery) -> None:
    with started("HEALTHY", nursery) as worker:
        pid = worker.pid
        worker.hang_up()
        deadline = time.monotonic() + 10
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(pid)


def test_workers_wait_without_spinning(nursery: Nursery) -> None:
    with started("HEALTHY", nursery) as worker:
        before = _cpu_seconds(worker.pid)
        time.sleep(0.5)
        assert _cpu_seconds(worker.pid) - before < 0.1


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

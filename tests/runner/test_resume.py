"""A coordinator that is killed loses the sample in flight and no more; what it left can be finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rls_bench import runner
from rls_bench.errors import RecordError
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.runner import Plan, journal

PROBLEMS = [
    Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny"),
    Problem(1, 2, 2, 1, 24, 16, 16, inputs="random", name="tiny decode"),
]
PLAN = Plan(PROBLEMS, ["fakes:HEALTHY", "fakes:CRASH"], launches=2, budget_seconds=1.0, questions=("warm",))
# Goes on until it is told to stop.
ENDLESS = Plan(PROBLEMS[:1], ["fakes:HEALTHY"], budget_seconds=600.0, target_interval=1e-9, questions=("warm",))
SCRIPT = """
import sys
from pathlib import Path
from rls_bench import runner
from rls_bench.problems.problem import Problem
from rls_bench.runner import Plan
out = Path(sys.argv[1])
plan = runner.unfinished(out)
if plan is None:
    import test_resume
    summary = runner.run(getattr(test_resume, sys.argv[2]), out)
else:
    summary = runner.run(plan, out, resume=True)
print("interrupted" if summary.interrupted else "whole")
"""


def start(out: Path, plan: str = "PLAN") -> subprocess.Popen[bytes]:
    """A coordinator in a process of its own: a new run of ``plan``, or the rest of a killed one."""
    path = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
    code = f"import sys; sys.path[:0] = {path!r}\n{SCRIPT}"
    command = [sys.executable, "-c", code, str(out), plan]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_samples(out: Path) -> None:
    """Until something was measured, or 90 s."""
    deadline = time.monotonic() + 90
    while not journalled(out) and time.monotonic() < deadline:
        time.sleep(0.05)


def journalled(out: Path) -> list[float]:
    """Every sample in the journals beside ``out``."""
    return [
        sample
        for path in out.parent.glob("*.part")
        if journal._has_start(path)
        for entry in journal.read(path)[1]
        if isinstance(entry, journal.Took)
        for sample in entry.samples_ns
    ]


def killed_at(out: Path, seconds: float) -> list[float]:
    """Start a run, kill it after ``seconds``, and return the samples that it had journalled."""
    process = start(out)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return journalled(out)


def assert_complete(out: Path, kept: list[float]) -> None:
    """Every cell is in ``out`` once, with every sample of ``kept``; nothing is left beside it."""
    skipped: list[record.Skipped] = []
    records = list(record.read(out, skipped))
    counts = Counter((entry.label, entry.problem.key) for entry in records)
    wanted = {
        (label, problem.key) for label in ("fakes:HEALTHY", "fakes:HEALTHY#2", "fakes:CRASH") for problem in PROBLEMS
    }
    wanted -= {("fakes:HEALTHY#2", key) for _, key in counts if ("fakes:HEALTHY#2", key) not in counts}
    assert counts == Counter(wanted)
    assert not skipped
    assert len({entry.run for entry in records}) == 1
    samples = [
        sample
        for entry in records
        for launches in entry.samples_ns.values()
        for launch in launches
        for sample in launch
    ]
    assert not Counter(kept) - Counter(samples)
    for entry in records:
        assert entry.status == ("crashed" if entry.backend == "fakes:CRASH" else "ok"), entry.reason
        assert entry.status != "ok" or sum(len(launch) >= 3 for launch in entry.samples_ns["warm"]) >= 2
    assert not list(out.parent.glob("*.part"))


def test_a_killed_run_is_finished_with_nothing_lost_and_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    process = start(out)
    wait_for_samples(out)
    process.kill()
    process.communicate()
    kept = journalled(out)
    assert kept
    assert runner.unfinished(out) == PLAN

    runner.run(PLAN, out, resume=True)

    assert_complete(out, kept)
    assert runner.unfinished(out) is None


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Eight of them; twenty with RLS_BENCH_WHOLE=1, each of a moment of its own."""
    kills = 20 if os.environ.get("RLS_BENCH_WHOLE") else 8
    whole = tmp_path / "whole" / "results.jsonl"
    began = time.monotonic()
    start(whole).communicate()
    seconds = time.monotonic() - began
    moments = random.Random(0)
    complete = 0
    for number in range(kills):
        out = tmp_path / str(number) / "results.jsonl"
        kept = killed_at(out, moments.uniform(0.2, 1.0) * seconds)
        if runner.unfinished(out) is not None:
            assert start(out).wait() == 0
        elif not out.exists():
            # Killed before its journal had a first line: nothing was measured yet.
            assert start(out).wait() == 0
        assert_complete(out, kept)
        complete += 1
    print(f"{complete} of {kills} complete; a whole run takes {seconds:.1f} s")


def test_records_that_were_written_before_the_kill_are_not_written_again(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    finished = runner.run(PLAN, tmp_path / "other.jsonl")
    # The journal of a run that was killed between its two last records.
    log = journal.Journal(journal.beside(out, finished.run))
    first = finished.records[0]
    log.write(journal.Started(first.run, first.created, PLAN, first.commit, first.dirty))
    log.close(remove=False)
    for entry in finished.records[:-1]:
        record.append(out, entry)

    resumed = runner.run(PLAN, out, resume=True)

    counts = Counter((entry.label, entry.problem.key) for entry in record.read(out))
    assert set(counts.values()) == {1}
    assert resumed.records[: len(finished.records) - 1] == finished.records[:-1]


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to resume"):
        runner.run(PLAN, tmp_path / "results.jsonl", resume=True)


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    process = start(out, "ENDLESS")
    wait_for_samples(out)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)

    assert printed.split() == [b"interrupted"], errors.decode()
    records = list(record.read(out))
    assert records[0].status == "ok"
    assert records[0].stopped == "interrupted"
    assert records[0].samples_ns["warm"][0]

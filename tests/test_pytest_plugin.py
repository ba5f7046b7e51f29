"""The pytest plugin in sessions of its own: cells agree first, slower runs fail the comparison, others stay out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

# With torch, before any session in this process: one that loaded torch would drop it again, and a second load crashes.
import faulty_backends
import pytest

pytest_plugins = ["pytester"]

CELLS = """
def test_cell(benchmark, steered_cell):
    benchmark.pedantic(steered_cell, rounds=5)
"""
# A backend as a user has it under work: right or wrong, quick or slow, as an environment variable says.
MINE = """
import os, time
from faulty_backends import ForgetsMask, Right

class Mine(Right):
    name = summary = "mine"
    def supports(self, problem):
        answer = super().supports(problem)
        return answer if problem.name in ("plain", "padded", "statistics") else type(answer)(False, "one is enough")
    def attend(self, inputs):
        time.sleep(float(os.environ.get("MINE_SECONDS", "0.002")))
        return super().attend(inputs)

class Wrong(ForgetsMask):
    name = summary = "wrong"

MINE, WRONG = Mine(), Wrong()
"""
# Of the session that runs these tests, nothing.
ALONE = ("-p", "no:cacheprovider", "-p", "no:xdist")
BENCHMARK = ("--benchmark-only", "--steered-suite=smoke", *ALONE)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-benchmark measures nothing in a worker of xdist, which may run these tests but not their sessions."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's folder with a backend of their own and the test of two lines that the plugin's docstring shows."""
    pytester.makepyfile(mine=MINE, test_cells=CELLS)
    pytester.syspathinsert()
    # For sessions in a process of their own.
    monkeypatch.setenv("PYTHONPATH", str(Path(faulty_backends.__file__).parent))
    return pytester


def test_without_benchmark_only_the_cells_stay_out(project: pytest.Pytester) -> None:
    project.makepyfile(test_other="def test_other(): pass")
    result = project.runpytest_inprocess(*ALONE)
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["rls_bench: 1 test of cells was left out; run: pytest --benchmark-only"])


def test_cells_are_measured_after_they_agreed(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(
        *BENCHMARK, "--steered-backend=mine:MINE", "--steered-backend=mine:WRONG", "--benchmark-json=out.json", "-rs"
    )
    found = json.loads((project.path / "out.json").read_text())["benchmarks"]
    mine = [entry for entry in found if entry["extra_info"]["backend"] == "mine:MINE"]
    assert len(mine) == 2
    assert all(entry["stats"]["min"] >= 0.002 and entry["extra_info"]["error"] < 1e-5 for entry in mine)
    # The wrong one is timed where it is right, and fails without a time where it isn't.
    result.stdout.fnmatch_lines(["*mine:WRONG on * padded: error is * the floor*"])
    assert not any("padded" in entry["name"] and "WRONG" in entry["name"] for entry in found)
    result.stdout.fnmatch_lines(["*SKIPPED*gives no statistics*"])
    assert result.ret == 1


@pytest.mark.slow
def test_a_slower_run_fails_the_comparison_and_the_same_does_not(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = (*BENCHMARK, "--steered-backend=mine:MINE")
    # Between a call and one held six times as long, since machines that run tests are busy.
    compare = ("--benchmark-compare", "--benchmark-compare-fail=min:200%")
    assert project.runpytest_subprocess(*one, "--benchmark-autosave").ret == 0
    assert project.runpytest_subprocess(*one, *compare).ret == 0
    monkeypatch.setenv("MINE_SECONDS", "0.2")
    slower = project.runpytest_subprocess(*one, *compare)
    assert slower.ret == 1
    slower.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_a_suite_that_nobody_knows_is_a_usage_error(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--benchmark-only", "--steered-suite=nope", *ALONE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--steered-suite: wanted one of*got 'nope'*"])


def test_problems_in_words_are_cells(project: pytest.Pytester) -> None:
    words = ("--benchmark-only", "--steered-problem=plain: H2 L8 D8", "--steered-backend=mine:MINE", *ALONE)
    project.runpytest_inprocess(*words).assert_outcomes(passed=1)
    result = project.runpytest_inprocess("--benchmark-only", "--steered-problem=H2 L8 DD8", *ALONE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--steered-problem: *'DD8' is no word for a problem*"])


def test_a_backend_of_ones_own_is_checked_by_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_right(steered_backend):
            assert steered_backend("faulty_backends:RIGHT").name == "right"

        def test_wrong(steered_backend):
            steered_backend("faulty_backends:FORGETS_MASK")

        def test_not_here(steered_backend):
            steered_backend("sdpa-cudnn")
        """
    )
    result = pytester.runpytest_inprocess(*ALONE, "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*faulty_backends:FORGETS_MASK does not conform:", "*causal: wrong:*"])


@pytest.mark.slow
def test_benchmarking_here_reads_no_test_that_times_nothing() -> None:
    line = [sys.executable, "-m", "pytest", "--benchmark-only", "--collect-only", *ALONE]
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    # Tests one a line, or counted file by file, as pytest's own verbosity has it.
    files = set(re.findall(r"^(\S+\.py)", done.stdout, re.MULTILINE))
    assert files == {"tests/test_cells.py"}, done.stdout + done.stderr

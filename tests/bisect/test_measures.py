"""What is read off one run of two trees, and off two inspections; a history of commits; a live search."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from paced import pace
from typer.testing import CliRunner

from rls_bench.ab import trees
from rls_bench.bisect import instructions, latency
from rls_bench.bisect.search import Measured, Unbuildable
from rls_bench.cli.app import app
from rls_bench.compare.sources import Source
from rls_bench.compare.verdict import Comparison, Row
from rls_bench.errors import RlsBenchError

ROOT = Path(__file__).parents[2]
SIDE = Source(Path("base"), (), (), {}, {}, 0)


def comparison(*rows: Row) -> Comparison:
    return Comparison(SIDE, SIDE, 0.02, False, [*rows], [])


def test_a_row_with_a_ratio_is_what_was_measured() -> None:
    row = Row("SLOWER", "problem", "eager", "warm", "m", ratio=1.05, low=1.04, high=1.06)
    assert latency.read(comparison(row)) == Measured("SLOWER", 1.05, 1.04, 1.06)


def test_a_broken_row_is_no_measurement() -> None:
    with pytest.raises(Unbuildable, match="broken: wrong: error above"):
        latency.read(comparison(Row("BROKEN", "problem", "eager", "", "m", "wrong: error above")))
    with pytest.raises(Unbuildable, match="neither side was timed"):
        latency.read(comparison())


def test_the_case_that_grew_most_counts() -> None:
    base = {("sm_90", "a"): 10.0, ("sm_90", "b"): 10.0, ("sm_90", "gone"): 1.0}
    new = {("sm_90", "a"): 10.6, ("sm_90", "b"): 5.0}
    assert instructions.over(new, base, 0.02) == Measured("SLOWER", 1.06, 1.06, 1.06)
    assert instructions.over(base, base, 0.02).verdict == "SAME"
    with pytest.raises(Unbuildable, match="no kernel compiles on both sides"):
        instructions.over({}, base, 0.02)


def git(root: Path, *arguments: str) -> str:
    words = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commits_of_a_history_are_named_oldest_first(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    for number in range(3):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", f"number {number}")
    found = trees.between("HEAD~2", "HEAD", tmp_path)
    assert [trees.subject(commit, tmp_path) for commit in found] == ["number 0", "number 1", "number 2"]
    with pytest.raises(RlsBenchError, match="HEAD is no ancestor of HEAD~1"):
        trees.between("HEAD", "HEAD~1", tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["--good", "a"],
        ["--good", "a", "--bad", "b", "--package", "triton", "3.6.0..3.9.0"],
        ["--good", "a", "--bad", "b"],
        [],
    ],
)
def test_words_that_make_no_search_are_refused(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["bisect", *words]).exit_code == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_planted_slowdown_is_found_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "repository"
    for part in ("kernels", "baselines", "rls_bench/backends"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    git(root, "init", "--quiet")
    pace(root, 0.02)
    for number in range(5):
        if number == 3:
            pace(root, 0.2)
        elif number == 2:
            (root / "rls_bench" / "backends" / "cpu.py").unlink()
        (root / "note").write_text(str(number))
        git(root, "add", "-A")
        git(root, "commit", "--quiet", "-m", f"number {number}")
    monkeypatch.chdir(root)
    words = ["--good", "HEAD~4", "--bad", "HEAD", "--problem", "B1 H2 L64 D16 fp32", "--backend", "eager"]
    done = CliRunner().invoke(app, ["bisect", *words, "--threshold", "50%", "--budget", "40"])
    assert done.exit_code == 0, done.output
    culprit = git(root, "rev-parse", "HEAD~1")
    assert f"first slow one: {culprit} number 3" in done.output
    again = f"again: rls-bench ab {git(root, 'rev-parse', 'HEAD~2')[:12]} {culprit[:12]} --problem"
    assert again in done.output

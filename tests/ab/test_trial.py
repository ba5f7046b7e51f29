"""Two trees in one run: a slowdown that was planted in one of them is found, and the same tree twice shows none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from paced import EAGER, pace

from rls_bench.ab import trial
from rls_bench.ab.trees import Tree
from rls_bench.compare import load
from rls_bench.problems.problem import Problem

ROOT = Path(__file__).parents[2]
PROBLEM = Problem(1, 2, 2, 64, 64, 16, 16, inputs="random", name="tiny")


def tree(path: Path, commit: str, extra: str = "", seconds: float = 0.02) -> Tree:
    for part in ("kernels", "baselines", "rls_bench/backends"):
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    pace(path, seconds)
    with (path / EAGER).open("a") as file:
        file.write(extra)
    return Tree(path, commit)


@pytest.mark.slow
def test_what_one_tree_does_slower_is_slower_and_the_rest_is_not(tmp_path: Path) -> None:
    base, new = tree(tmp_path / "base", "a" * 40), tree(tmp_path / "new", "b" * 40, seconds=0.2)
    files = trial.Files.beside(tmp_path / "out")
    found = trial.run(base, new, [PROBLEM], ["eager", "sdpa-math"], tmp_path / "out", threshold=0.5, budget_seconds=90)
    verdicts = {row.backend: row.verdict for row in found.rows}
    assert verdicts["eager"] == "SLOWER"
    assert verdicts["sdpa-math"] != "SLOWER"
    assert found.exit_code == 1
    assert load(files.base).commits == ("a" * 40,)
    assert load(files.new).commits == ("b" * 40,)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_a_tree_against_itself_shows_no_difference_and_a_broken_one_says_so(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", "a" * 40)
    same = trial.run(base, base, [PROBLEM], ["eager"], tmp_path / "same", threshold=0.5, budget_seconds=40)
    assert [row.verdict for row in same.rows] in (["SAME"], ["AMBIGUOUS"]), same.rows
    broken = tree(tmp_path / "broken", "b" * 40, "\nBACKEND.prepare = lambda inputs: (lambda: inputs.query * 0)\n")
    found = trial.run(base, broken, [PROBLEM], ["eager"], tmp_path / "broken", threshold=0.5, budget_seconds=20)
    assert [row.verdict for row in found.rows] == ["BROKEN"]
    assert found.exit_code == 1

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
from rls_bench.runner import journal
from rls_bench.runner.plan import Plan

ROOT = Path(__file__).parents[2]
PROBLEM = Problem(1, 2, 2, 64, 64, 16, 16, inputs="random", name="tiny")


def tree(path: Path, commit: str, extra: str = "", seconds: float = 0.02) -> Tree:
    for part in ("kernels", "baselines", "rls_bench/backends"):
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    pace(path, seconds)
    with (path / EAGER).open("a") as file:
        file.write(extra)
    return Tree(path, commit)


def test_calls_that_a_neighbour_slowed_are_no_difference() -> None:
    names = {"eager": 0, "eager@new": 1}
    plan = Plan([PROBLEM], list(names), launches=1, race=False, questions=("warm",), aa=False)
    board = trial._Board(plan, names, (Tree(ROOT, "a" * 40), Tree(ROOT, "b" * 40)), 0.02)
    for label, slowed in (("eager", 0.2), ("eager@new", 0.8)):
        for turn in range(4):
            # The whole of a turn on one side, once; most calls of the others.
            least = 4.0 if (label, turn) == ("eager", 1) else 1.0
            samples = [1e6 * least * (3.0 if draw < slowed else 1.0) for draw in (0.1, 0.3, 0.5, 0.7, 0.9)]
            board.apply(journal.Took(label, 0, 1, "warm", samples, []))
    base, new = (board.of_label(name)[0] for name in names)
    assert board._ratio(base, new, 1) == 0.0
    assert board._ratio(base, new, 2) is None


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

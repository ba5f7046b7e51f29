"""Where the sources of a commit come from: a worktree made once, or a directory as it lies there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rls_bench.ab import trees
from rls_bench.errors import RlsBenchError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a tree with one baseline."""
    root = tmp_path / "repository"
    (root / "baselines").mkdir(parents=True)
    git(root, "init", "--quiet")
    for number in (1, 2):
        (root / "baselines" / "answer.py").write_text(f"ANSWER = {number}\n")
        git(root, "add", "-A")
        git(root, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", str(number))
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def test_a_commit_gets_a_worktree_that_stays(repository: Path) -> None:
    tree = trees.of_commit("HEAD~1", repository)
    answer = tree.path / "baselines" / "answer.py"
    assert answer.read_text() == "ANSWER = 1\n"
    assert tree.commit is not None
    assert not tree.dirty
    # Kept by hash: what lies there is not made anew.
    answer.write_text("ANSWER = 3\n")
    assert trees.of_commit(tree.commit, repository) == tree
    assert answer.read_text() == "ANSWER = 3\n"
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""


def test_a_directory_is_taken_as_it_is_and_says_that_it_has_changes(repository: Path) -> None:
    assert trees.of_directory(repository).title == trees.of_commit("HEAD", repository).title
    (repository / "baselines" / "answer.py").write_text("ANSWER = 4\n")
    assert trees.of_directory(repository).dirty
    assert trees.of_directory(repository).title.endswith("+changes")


def test_no_such_commit_and_no_such_tree_are_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RlsBenchError, match=r"rev-parse --verify nothing.* no such commit"):
        trees.of_commit("nothing", repository)
    with pytest.raises(RlsBenchError, match="neither kernels/ nor baselines/"):
        trees.of_directory(tmp_path)
    with pytest.raises(RlsBenchError, match="neither kernels/ nor baselines/"):
        trees.of_directory(tmp_path / "missing")

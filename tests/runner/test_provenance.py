"""Which commit was measured, whether its sources changed, and why git doesn't say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rls_bench.runner import provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which holds one kernel."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernel.py").write_text("one")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for line in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *line], check=True, cwd=tmp_path)
    return tmp_path


def test_a_clean_tree(repository: Path) -> None:
    found = provenance.git_commit()
    assert found.commit is not None
    assert (len(found.commit), found.dirty, found.unknown) == (40, False, "")


@pytest.mark.parametrize("name", ["kernel.py", "other.py", "folder/new.cu", "a name.cpp"])
def test_a_source_that_changed_or_that_git_does_not_know_is_dirty(name: str, repository: Path) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("two")
    assert provenance.git_commit().dirty


def test_results_that_git_does_not_know_are_not(repository: Path) -> None:
    (repository / "results").mkdir()
    (repository / "results" / "r.jsonl").write_text("{}")
    assert not provenance.git_commit().dirty


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance.git_commit()
    assert (found.commit, found.dirty) == (None, False)
    assert "not a git repository" in found.unknown


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.git_commit() == (None, False, "git is not installed")


def test_a_git_that_refuses_says_why(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    found = provenance.git_commit()
    assert found.commit is None
    assert "dubious ownership" in found.unknown

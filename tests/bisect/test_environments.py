"""A package's versions: what pip lists, and a folder each that stands ahead of this environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rls_bench.ab.trees import Tree
from rls_bench.backends import sources
from rls_bench.bisect import environments
from rls_bench.errors import RlsBenchError

ANSWER = "triton (3.9.0)\nAvailable versions: 3.9.0, 3.8.0, 3.7.1, 3.7.0\n  INSTALLED: 3.7.1\n"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Stands in for pip; what it was asked."""
    asked: list[tuple[str, ...]] = []

    def answer(*words: str) -> str:
        asked.append(words)
        if words[0] == "install":
            Path(words[words.index("--target") + 1]).mkdir(parents=True)
        return ANSWER

    monkeypatch.setattr(environments, "_pip", answer)
    return asked


def test_versions_are_taken_oldest_first_with_both_ends(pip: list[tuple[str, ...]]) -> None:
    assert environments.versions("triton", "3.7.0..3.8.0") == ["3.7.0", "3.7.1", "3.8.0"]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ("3.7.0", "wanted versions such as"),
        ("3.7.0..", "wanted versions such as"),
        ("3.6.0..3.8.0", r"no version 3\.6\.0; there are 3\.7\.0, 3\.7\.1"),
        ("3.9.0..3.7.0", r"3\.9\.0 is newer than 3\.7\.0"),
    ],
)
def test_ends_that_make_no_span_are_refused(pip: list[tuple[str, ...]], span: str, words: str) -> None:
    with pytest.raises(RlsBenchError, match=words):
        environments.versions("triton", span)


def test_an_environment_is_made_once(pip: list[tuple[str, ...]], tmp_path: Path) -> None:
    tree = environments.of_version("triton", "3.8.0", tmp_path)
    assert tree == Tree(tmp_path / "environments" / "triton-3.8.0", None)
    assert (tree.path / sources.PACKAGES).is_dir()
    assert environments.of_version("triton", "3.8.0", tmp_path) == tree
    (words,) = pip
    assert words[-1] == "triton==3.8.0"


def test_a_process_that_has_loaded_a_package_cannot_exchange_it(tmp_path: Path) -> None:
    (tmp_path / sources.PACKAGES / "msgspec").mkdir(parents=True)
    before = list(sources._ENTERED), list(sys.path)
    try:
        with pytest.raises(RuntimeError, match="msgspec is loaded before a process can enter"):
            sources._check_fresh(tmp_path / sources.PACKAGES)
    finally:
        assert (sources._ENTERED, sys.path) == (before[0], before[1])

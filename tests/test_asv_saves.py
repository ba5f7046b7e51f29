"""``make asv`` keeps figures under a commit only where the tree is that commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def asked_of_asv(folder: Path) -> str:
    """What ``make asv`` hands to asv in ``folder``, where a stand-in prints it."""
    done = subprocess.run(
        ["make", "-s", "asv", "-o", "asv-machine", "BIN=./bin"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("git") is None, reason="needs make and git")
def test_a_changed_tree_saves_nothing_under_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("rls_bench", "kernels", "baselines", "benchmarks", "bin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.py").write_text("1")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "bin" / "asv").write_text("#!/bin/sh\necho asv $@\n")
    (tmp_path / "bin" / "asv").chmod(0o755)
    for line in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", *line], check=True, cwd=tmp_path)
    assert "--set-commit-hash" in asked_of_asv(tmp_path)
    (tmp_path / "kernels" / "new.py").write_text("2")
    changed = asked_of_asv(tmp_path)
    assert "asv run --machine laptop --dry-run" in changed
    assert "kernels/new.py" in changed

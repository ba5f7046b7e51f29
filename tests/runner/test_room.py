"""A full disk is said as such, before a run and as it goes on, and is never a backend's failure."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from rls_bench.ab import trial
from rls_bench.ab.trees import Tree
from rls_bench.errors import RlsBenchError
from rls_bench.problems.problem import Problem
from rls_bench.runner import Plan, room, run

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16)


class Full(io.BytesIO):
    """A file on a disk that is full: it can be made, and takes nothing."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_starts_where_the_temporary_folder_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room.check()
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(RlsBenchError, match=r"the temporary folder .*No space left.*TMPDIR"):
        run(Plan([PROBLEM], ["eager"]), out)
    tree = Tree(tmp_path, None)
    with pytest.raises(RlsBenchError, match="the temporary folder"):
        trial.run(tree, tree, [PROBLEM], ["eager"], out)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_from_other_errors_whoever_wraps_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/scratch/a.o")
    wrapped, quoted = RuntimeError("compiling failed"), RuntimeError("cc1: fatal error: a.s: No space left on device")
    wrapped.__cause__ = full
    assert room.lacking(full) == room.lacking(wrapped) == "/scratch/a.o"
    assert room.lacking(quoted) == room.lacking(OSError(errno.EDQUOT, "Disk quota exceeded")) == tempfile.gettempdir()
    for other in (OSError(errno.EACCES, "Permission denied", "/scratch"), RuntimeError("no space for more rows")):
        assert room.lacking(other) is None
    # Errors that name each other.
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert room.lacking(one) is None

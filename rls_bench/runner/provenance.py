"""Where a run's figures come from: when, and which commit."""

from __future__ import annotations

import os
import secrets
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

_SOURCES = frozenset(
    {".py", ".pyi", ".so", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".ptx", ".pyx", ".toml"}
)


def utc_now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_id() -> str:
    """A name for a run that sorts by time and is never given twice."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class Commit(NamedTuple):
    """The commit of the working directory, None where it is unknown, and then why; whether its sources changed."""

    commit: str | None
    dirty: bool
    unknown: str = ""


def git_commit() -> Commit:
    """The commit of the working directory. A source that git doesn't know is a change, too; results are none."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "-z", "--untracked-files=all").split("\0")
    except FileNotFoundError:
        return Commit(None, False, "git is not installed")
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()] or [f"it ended with {error.returncode}"]
        return Commit(None, False, f"git: {said[0].removeprefix('fatal: ')}")
    except (OSError, subprocess.SubprocessError) as error:
        return Commit(None, False, f"git: {error}")
    return Commit(commit, any(_is_change(line) for line in changes if line))


def _is_change(line: str) -> bool:
    """Whether a line of ``git status --porcelain`` may change what is measured."""
    return not line.startswith("??") or Path(line[3:]).suffix in _SOURCES


def _git(*arguments: str) -> str:
    # Messages in one language, whatever the user's.
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *arguments],
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=10,
        env=environment,
    )
    return done.stdout.strip()

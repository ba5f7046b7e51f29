"""Where a run's figures come from: when, and which commit."""

from __future__ import annotations

import secrets
import subprocess
from datetime import datetime, timezone


def utc_now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_id() -> str:
    """A name for a run that sorts by time and is never given twice."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def git_commit() -> tuple[str | None, bool]:
    """The commit of the working directory and whether it has changes; (None, False) outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout.strip()

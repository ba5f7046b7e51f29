"""Versions of a package, each installed once in a folder of its own, which stands ahead of this environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import platformdirs

from rls_bench.ab.trees import Tree
from rls_bench.backends.sources import PACKAGES
from rls_bench.errors import RlsBenchError

_TIMEOUT_SECONDS = 1800


def versions(package: str, span: str) -> list[str]:
    """The versions of ``span``, ``3.6.0..3.9.0``, that the package index has, oldest first, both ends among them.

    Raises RlsBenchError where pip cannot be asked, or an end is none of them.
    """
    first, mark, last = span.partition("..")
    if not (mark and first and last):
        raise RlsBenchError(f"--package: wanted versions such as 3.6.0..3.9.0; got {span!r}")
    known = available(_pip("index", "versions", package))
    for end in (first, last):
        if end not in known:
            raise RlsBenchError(f"--package: {package} has no version {end}; there are {', '.join(known) or 'none'}")
    begin, end_at = known.index(first), known.index(last)
    if begin > end_at:
        raise RlsBenchError(f"--package: {first} is newer than {last}: wanted the good version before the bad one")
    return known[begin : end_at + 1]


def available(answer: str) -> list[str]:
    """The versions in what ``pip index versions`` prints, oldest first."""
    found = re.search(r"^Available versions: (.+)$", answer, flags=re.MULTILINE)
    return [word.strip() for word in found[1].split(",")][::-1] if found else []


def of_version(package: str, version: str, cache: Path | None = None) -> Tree:
    """An environment with that version; what it needs itself is this environment's. Raises RlsBenchError."""
    root = (cache or platformdirs.user_cache_path("rls-bench")) / "environments" / f"{package}-{version}"
    if not root.is_dir():
        part = root.with_name(f"{root.name}.part")
        target = str(part / PACKAGES)
        # Whole or not at all.
        _pip("install", "--quiet", "--no-deps", "--upgrade", "--target", target, f"{package}=={version}")
        part.replace(root)
    return Tree(root, None)


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RlsBenchError(f"pip {words[0]}: no answer within {_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"it ended with {done.returncode}"]
        raise RlsBenchError(f"pip {words[0]} {words[-1]}: {lines[-1]}")
    return done.stdout

"""What a candidate's Triton kernels compile to, against the good one's: instructions a score, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rls_bench.bisect.search import Measure, Measured, Unbuildable
from rls_bench.errors import RlsBenchError
from rls_bench.inspector import baseline

# By architecture and title.
Counts = dict[tuple[str, str], float]


def measure(paths: Callable[[str], list[str]], good: str, arch: str, only: Sequence[str]) -> Measure:
    """How candidates are counted; ``paths`` says what a candidate's processes import from, ahead of all else.

    Each is compiled once, for ``arch``, those cases whose titles have all words of ``only``.
    """
    counted: dict[str, Counts] = {}

    def counts(candidate: str) -> Counts:
        if candidate not in counted:
            try:
                counted[candidate] = _count(paths(candidate), arch, only)
            except RlsBenchError as error:
                raise Unbuildable(str(error)) from error
        return counted[candidate]

    def run(candidate: str, threshold: float, effort: float) -> Measured:
        del effort
        return over(counts(candidate), counts(good), threshold)

    return run


def over(new: Counts, base: Counts, threshold: float) -> Measured:
    """The case that grew most: counts have no noise. Raises Unbuildable where the two share no case."""
    ratios = [new[case] / base[case] for case in new.keys() & base.keys() if base[case] > 0]
    if not ratios:
        raise Unbuildable("no kernel compiles on both sides")
    most = max(ratios)
    verdict = "SLOWER" if most > 1 + threshold else "FASTER" if most < 1 - threshold else "SAME"
    return Measured(verdict, most, most, most)  # type: ignore[arg-type]


def _count(paths: Sequence[str], arch: str, only: Sequence[str]) -> Counts:
    with tempfile.TemporaryDirectory(prefix="rls-bench-bisect-") as folder:
        out = Path(folder) / "inspection.json"
        command = [sys.executable, "-m", "rls_bench", "inspect", "--arch", arch, "--json", str(out)]
        command += [word for each in only for word in ("--only", each)]
        # From nowhere, or the working directory's sources would come first.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if not out.exists():
            lines = done.stderr.strip().splitlines() or [f"rls-bench inspect ended with {done.returncode}"]
            raise RlsBenchError(lines[-1])
        listing = baseline.read(out)
    return {
        (found.arch, found.variant.title): max(loop.instructions for loop in found.hot_loops)
        for found in listing.inspections
        if not found.error and found.hot_loops
    }

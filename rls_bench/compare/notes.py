"""What a reader must know beside the verdicts: a machine that moved, other versions, older commits, bad lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rls_bench.compare.controls import Control
from rls_bench.compare.sources import Source
from rls_bench.machines.machine import Machine

HARDWARE = ("cpu_model", "cpu_isa", "cpu_count", "threads", "gpu_name", "gpu_count")
VERSIONS = ("torch", "triton", "cuda", "cudnn", "driver", "python", "os")
SIDES = ("base", "new")


def differences(one: Machine, other: Machine, fields: Sequence[str]) -> str:
    """``driver 550 → 560, torch 2.12 → 2.13`` for those of ``fields`` that differ."""
    pairs = [(field, getattr(one, field), getattr(other, field)) for field in fields]
    return ", ".join(f"{field} {before} → {after}" for field, before, after in pairs if before != after)


def cautions(controls: Mapping[tuple[str, str], Control]) -> list[str]:
    """What to know before any verdict, one line each; ``controls`` by machine in words and question."""
    lines = []
    for (machine, question), found in controls.items():
        slopes = [
            f"{side} by {math.expm1(slope):+.1%}" for side, slope in zip(SIDES, found.drifts, strict=True) if slope
        ]
        if slopes:
            lines.append(
                f"{machine} drifted ({question} latency of all cells, {' and '.join(slopes)} a launch): the intervals "
                "hold what a cell did beside the median one, too; rls-bench ab measures both at once"
            )
        if found.shift:
            lines.append(
                f"the median cell moved by {math.expm1(found.shift):+.1%} ({question}, {machine}): a machine that "
                "changed moves all cells at once, and so does a change in what they share; rls-bench ab tells which"
            )
    return lines


def notes(base: Source, new: Source, unjudged: int) -> list[str]:
    """One line each; ``unjudged`` cells are without latency on both sides."""
    lines = []
    for side in (base, new):
        if side.skipped:
            lines.append(f"{side.path}: {side.skipped} unreadable lines left out")
            lines.append(f"{side.path}: {side.first_skipped}")
        if side.older:
            older = ", ".join(commit[:12] for commit in side.older)
            lines.append(f"{side.path} holds older commits, too ({older}): of each cell the newest commit was judged")
    for fingerprint in base.machines.keys() & new.machines.keys():
        if changed := differences(base.machines[fingerprint], new.machines[fingerprint], VERSIONS):
            lines.append(f"other versions on {new.machines[fingerprint].title}: {changed}")
    if unjudged:
        lines.append(f"{unjudged} cells have no latency on either side: nothing to compare")
    return lines

"""What a reader must know beside the verdicts: other versions, mixed commits, unreadable lines, drift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rls_bench.compare.sources import Source
from rls_bench.machines.machine import Machine

HARDWARE = ("cpu_model", "cpu_isa", "cpu_count", "threads", "gpu_name", "gpu_count")
VERSIONS = ("torch", "triton", "cuda", "cudnn", "driver", "python", "os")
# The median of fewer cells says little about the machine.
_FEWEST_FOR_DRIFT = 10


def differences(one: Machine, other: Machine, fields: Sequence[str]) -> str:
    """``driver 550 → 560, torch 2.12 → 2.13`` for those of ``fields`` that differ."""
    pairs = [(field, getattr(one, field), getattr(other, field)) for field in fields]
    return ", ".join(f"{field} {before} → {after}" for field, before, after in pairs if before != after)


def notes(base: Source, new: Source, log_ratios: Sequence[float], unjudged: int) -> list[str]:
    """One line each; ``log_ratios`` are those of the cells compared, ``unjudged`` the cells without latency."""
    lines = []
    for side in (base, new):
        if side.skipped:
            lines.append(f"{side.path}: {side.skipped} unreadable lines left out")
        if len(side.commits) > 1:
            lines.append(f"{side.path} mixes commits {side.commit}: their launches are judged as one")
    for fingerprint in base.machines.keys() & new.machines.keys():
        if changed := differences(base.machines[fingerprint], new.machines[fingerprint], VERSIONS):
            lines.append(f"other versions on {new.machines[fingerprint].title}: {changed}")
    if len(log_ratios) >= _FEWEST_FOR_DRIFT and abs(drift := float(np.median(log_ratios))) > math.log1p(0.01):
        lines.append(
            f"the median cell moved by {math.expm1(drift):+.1%}: a machine that changed moves all cells at once"
        )
    if unjudged:
        lines.append(f"{unjudged} cells have no latency on either side: nothing to compare")
    return lines

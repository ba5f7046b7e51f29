"""The steering tax: what the same kernel costs more in its hot loop because it steers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rls_bench.inspector.inspection import HotLoop, Inspection, Variant


@dataclass(frozen=True)
class Tax:
    """Differences a score between two hot loops of one kernel on one architecture.

    ``instructions`` is thread instructions, ``fp32`` those of the FP32 set. ``of`` says what was added: steering
    over the unsteered loop, eps or stats over the steered one. ``same_tile`` is False where what was added made the
    kernel take other tiles, whose price is in the difference too.
    """

    of: str
    instructions: float
    fp32: float
    same_tile: bool = True


def taxes(inspections: Iterable[Inspection]) -> dict[str, list[Tax]]:
    """By ``Inspection.key``: steering over unsteered, and eps and stats over the same variant without them.

    A variant without a counterpart has no entry.
    """
    by_key = {inspection.key: inspection for inspection in inspections if inspection.hot is not None}
    found: dict[str, list[Tax]] = {}
    for key, inspection in by_key.items():
        for of, without in _counterparts(inspection.variant):
            base = by_key.get(replace(inspection, variant=without).key)
            if base is None or base.hot is None or inspection.hot is None:
                continue
            same_tile = _tile(base) == _tile(inspection)
            found.setdefault(key, []).append(tax(of, base.hot, inspection.hot, same_tile))
    return found


def tax(of: str, without: HotLoop, having: HotLoop, same_tile: bool = True) -> Tax:
    """What ``having`` costs more a score than ``without``."""
    return Tax(of, having.instructions - without.instructions, having.fp32 - without.fp32, same_tile)


def _tile(inspection: Inspection) -> tuple[int, int, int]:
    return inspection.block_m, inspection.block_n, inspection.num_warps


def _counterparts(variant: Variant) -> list[tuple[str, Variant]]:
    if variant.eps:
        return [("eps", replace(variant, eps=False))]
    if variant.stats:
        return [("stats", replace(variant, stats=False))]
    if variant.strength_layout != "none":
        return [("steering", replace(variant, strength_layout="none"))]
    return []

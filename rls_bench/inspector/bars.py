"""What a shipped kernel must compile to, as numbers that each inspection is held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rls_bench.inspector.inspection import Inspection
from rls_bench.inspector.tax import Tax

_HALF = ("bf16", "fp16")
_WIDTHS = (64, 128)
_PATHS = {"sm_90": "wgmma", "sm_100": "tcgen05"}
# Unsteered hot loop, tiles of 128 × 64, head_dim 64, bf16, not causal.
_TILE = (128, 64)
_UNSTEERED = {"sm_80": 10.0, "sm_120": 10.0, "sm_90": 8.7, "sm_100": 7.2}


@dataclass(frozen=True)
class Bar:
    """One figure of one case against its limit."""

    name: str
    case: str
    value: float | str
    limit: float | str
    met: bool


def judge(inspections: Sequence[Inspection], taxes: dict[str, list[Tax]]) -> list[Bar]:
    """Every bar that applies to ``inspections``."""
    return [bar for inspection in inspections if not inspection.error for bar in _bars(inspection, taxes)]


def tally(bars: Sequence[Bar]) -> dict[str, tuple[int, int]]:
    """By name of the bar: how many cases meet it, and how many it applies to."""
    names = dict.fromkeys(bar.name for bar in bars)
    of_name = {name: [bar.met for bar in bars if bar.name == name] for name in names}
    return {name: (sum(met), len(met)) for name, met in of_name.items()}


def _at_most(name: str, inspection: Inspection, value: float, limit: float) -> Bar:
    return Bar(name, inspection.key, round(value, 4), limit, round(value, 4) <= limit)


def _bars(inspection: Inspection, taxes: dict[str, list[Tax]]) -> Iterator[Bar]:
    variant, arch = inspection.variant, inspection.arch
    yield Bar("fits an SM", inspection.key, inspection.limited_by, "one block at least", inspection.fits)
    is_backward = variant.kernel.startswith("backward")
    yield _at_most("spill bytes", inspection, inspection.spill_bytes, 0)
    if not is_backward:
        yield _at_most("stack bytes", inspection, inspection.stack_bytes, 0)
    # Full float32 has no tensor path, and instructions a score are looked after at these widths.
    if variant.dtype not in _HALF or variant.head_dim not in _WIDTHS:
        return
    wanted = _PATHS.get(arch, "mma.sync")
    yield Bar("tensor path", inspection.key, inspection.tensor_path, wanted, wanted in inspection.tensor_path)
    for tax in taxes.get(inspection.key, []) if variant.kernel == "prefill" else []:
        if tax.of == "steering" and not variant.stats:
            per_query = variant.strength_layout == "bhq"
            yield _at_most("steering tax, fp32 a score", inspection, tax.fp32, 1.1 if per_query else 0.05)
            yield _at_most(
                "steering tax, instructions a score", inspection, tax.instructions, 2.0 if per_query else 1.0
            )
        elif tax.of == "eps":
            yield _at_most("exact eps, instructions a score", inspection, tax.instructions, 1.1)
        elif tax.of == "stats":
            yield _at_most("stats, instructions a score", inspection, tax.instructions, 3.5)
    plain = (
        variant.kernel == "prefill" and variant.strength_layout == "none" and not (variant.stats or variant.is_causal)
    )
    if plain and variant.head_dim == 64 and variant.dtype == "bf16" and arch in _UNSTEERED:
        name = "unsteered, instructions a score"
        if (inspection.block_m, inspection.block_n) == _TILE and inspection.hot:
            yield _at_most(name, inspection, inspection.hot.instructions, _UNSTEERED[arch])
        else:
            # Another tile is no way round the bar.
            yield Bar(name, inspection.key, "no hot loop of 128 × 64 tiles", _UNSTEERED[arch], met=False)

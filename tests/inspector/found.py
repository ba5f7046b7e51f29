"""Inspections made by hand, for tests of what is done with them."""

from typing import Any

from rls_bench.inspector.inspection import HotLoop, Inspection, Variant


def hot_loop(instructions: float = 10.0, fp32: float = 4.0, **changes: Any) -> HotLoop:
    """A loop over a head_dim of 64."""
    figures = {"fp32_lanes": fp32, "mufu": 1.0, "tensor_flops": 256.0, "unroll": 1.0, "mix": {"fp32": fp32}}
    return HotLoop(instructions, fp32, **{**figures, **changes})


def inspection(
    variant: Variant | None = None, arch: str = "sm_80", instructions: float = 10.0, fp32: float = 4.0, **changes: Any
) -> Inspection:
    """A healthy prefill kernel with tiles of 128 × 64."""
    figures: dict[str, Any] = {
        "block_m": 128,
        "block_n": 64,
        "num_warps": 8,
        "num_stages": 2,
        "registers": 200,
        "blocks_per_sm": 1,
        "warps_per_sm": 8,
        "limited_by": "registers",
        "tensor_path": "mma.sync",
        "hot_loops": [hot_loop(instructions, fp32)],
    }
    return Inspection(variant or Variant("prefill", 64, "bf16"), arch, **{**figures, **changes})


UNSTEERED = Variant("prefill", 64, "bf16", strength_layout="none")
STEERED = Variant("prefill", 64, "bf16")
PER_QUERY = Variant("prefill", 64, "bf16", strength_layout="bhq")

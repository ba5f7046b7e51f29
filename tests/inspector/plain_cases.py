"""Cases of the small kernel in plain_flash."""

from rls_bench.inspector.compile import Source
from rls_bench.inspector.inspection import Case, Variant

_TYPES = {
    "query_ptr": "*bf16",
    "key_ptr": "*bf16",
    "value_ptr": "*bf16",
    "bias_ptr": "*fp32",
    "out_ptr": "*bf16",
    "strength": "fp32",
    "scale": "fp32",
    "length": "i32",
}


def plain_case(arch: str, head_dim: int = 64, steered: bool = False) -> Case:
    """One case with 128 × 64 tiles; ``steered`` adds the bias as the accumulator's first value."""
    source = Source(
        "inspector.plain_flash:plain_flash",
        _TYPES,
        {"STEERED": steered, "HEAD_DIM": head_dim, "BLOCK_M": 128, "BLOCK_N": 64},
        aligned=("query_ptr", "key_ptr", "value_ptr", "bias_ptr", "out_ptr", "length"),
        num_warps=4 if arch == "sm_100" else 8,
    )
    variant = Variant("plain", head_dim, "bf16", strength_layout="scalar" if steered else "none")
    return Case(variant, arch, source, 128, 64, 2 * head_dim)

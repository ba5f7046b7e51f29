"""Block sizes, warps and stages of each kernel for each architecture: the one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
# Columns of a head that full float32 multiplies at a time.
_SLICE = 16
# Powers of two that λb may span in the narrow kernel. The weights that statistics are of are float16 always, and log p
# must stay small, its product with p being rounded. Float16 must keep the precision of a weight that is large without
# steering alone. Bfloat16 has range enough; its sums, divided by eps, must stay within float32.
_NARROWEST_STATS = 8.0
_NARROWEST_FLOAT16 = 12.0
_NARROWEST_BFLOAT16 = 64.0


@dataclass(frozen=True)
class Configuration:
    """How one kernel is cut up.

    ``block_m`` queries and ``block_n`` keys a block; ``partials`` partial sums are kept of a row. With ``sums_by_dot``
    the matrix unit sums the rows of the weights, at the price of one more narrow tile: where instructions run out
    before tensor throughput does. With ``bias_early`` a block's biases are loaded ahead of its keys: the compiler keeps
    that order, and how many registers the loop takes hangs on it. With ``rows_anew`` a program works out again after
    the loops which rows are its own, so that no register holds it across them. With ``descriptors`` blocks of keys and
    values that need no mask are loaded by tensor descriptors (TMA), where the tensors' layout allows that. Those that
    need one have ``masked_n`` keys: they are few, but as wide as the others they would hold the most registers of
    a kernel, and on the diagonal multiply more of what is hidden. With ``slice_d`` the products over a head's columns
    take so many of them at a time, as full float32 needs.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    partials: int = 8
    sums_by_dot: bool = False
    bias_early: bool = False
    rows_anew: bool = False
    descriptors: bool = False
    masked_n: int = 32
    slice_d: int | None = None

    def constants(self) -> dict[str, Any]:
        """Block sizes, warps and stages as every kernel's launch takes them."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


def block_width(head_dim: int) -> int:
    """Columns of a tile that holds ``head_dim``: a power of two, and no fewer than a matrix unit takes."""
    return max(16, 1 << (head_dim - 1).bit_length())


def prefill(
    arch: int,
    head_dim: int,
    element_bytes: int,
    *,
    exact_sums: bool = False,
    has_eps: bool = False,
    is_per_query: bool = False,
) -> Configuration:
    """The configuration of the prefill kernels; ``arch`` is 80 for sm_80, ``head_dim`` the larger of D and Dv.

    ``exact_sums`` asks for row sums of weights that no dot has rounded, as statistics need; ``is_per_query`` is for λ
    that varies with the query.
    """
    # tcgen05 gives each thread a whole row; one partial sum is all there is to keep.
    partials = 1 if arch == 100 else 8
    if element_bytes == 4:
        # Full float32 runs on the ordinary pipes: a thread holds rows of both tiles, a slice of the head at a time.
        keys = 32 if head_dim <= (64 if arch >= 100 else 128) else 16
        queries = 32 if has_eps and head_dim > 128 else 64
        warps = 4 if head_dim <= 64 and not has_eps else 8
        # All three at once leave no registers for partial sums: 24 B would spill at D 128 on sm_90.
        if exact_sums and has_eps and is_per_query:
            partials = 1
        return Configuration(queries, keys, warps, 2, partials, masked_n=keys, slice_d=_SLICE)
    if head_dim > 128:
        # Where more is kept of each row, masked blocks of 32 keys spilt up to 124 B on sm_90.
        masked = 16 if exact_sums or has_eps else 32
        anew = exact_sums and not has_eps and arch != 100
        return Configuration(64, 32, 8, 2, partials, rows_anew=anew, masked_n=masked)
    # Sums by dot where instructions bind before tensor throughput does, and where wide heads leave no registers.
    by_dot = (arch in (80, 90, 100) or head_dim > 64) and not exact_sums
    # The narrowest tile that the matrix unit sums into; on sm_90 a wider one compiles to less. Eps keeps a sum of plain
    # weights beside it.
    if by_dot and not has_eps:
        partials = 16 if arch in (90, 100) else 8
    is_plain = not (exact_sums or has_eps)
    # Registers hold scores, output and sums: what is wide or keeps more sums takes fewer keys a block.
    # Two of the three at once would spill up to 600 B with 64 keys.
    if arch == 90 and exact_sums + has_eps + is_per_query > 1 and (has_eps or head_dim > 64):
        return Configuration(128, 32, 8, 2, 1 if exact_sums and has_eps else partials, by_dot)
    if arch == 90:
        # Rows found anew leave registers for a second block an SM. Descriptors cost narrow heads more than they save.
        is_narrow = head_dim <= 64
        return Configuration(
            128, 64, 8, 2, partials, by_dot,
            bias_early=is_narrow, rows_anew=is_narrow, descriptors=is_plain and not is_narrow,
        )  # fmt: skip
    if arch == 100:
        keys, warps = 32 if exact_sums else 64, 4 if is_plain else 8
        return Configuration(128, keys, warps, 2, partials, by_dot, bias_early=True, descriptors=is_plain)
    keys = 64 if is_plain or head_dim <= 64 else 32
    # Four warps share each fragment of keys and values between two tiles of queries; elsewhere that would spill.
    warps = 4 if arch == 80 and is_plain and head_dim <= 64 else 8
    early = arch != 80 or head_dim <= 64
    # On sm_120 narrower masked blocks cost the plain loop moves at D 64, and wider ones registers in all others.
    masked = 32
    if arch == 120 and is_plain and head_dim <= 64:
        masked = 64
    elif arch == 120 and exact_sums and head_dim > 64:
        masked = 16
    return Configuration(128, keys, warps, 2, partials, by_dot, bias_early=early, rows_anew=True, masked_n=masked)


def narrowest(is_float16: bool, stats: bool) -> float:
    """Powers of two that λb may span in the narrow kernel; ``is_float16`` says whether inputs are."""
    if stats:
        return _NARROWEST_STATS
    return _NARROWEST_FLOAT16 if is_float16 else _NARROWEST_BFLOAT16


def columns(arch: int) -> int:
    """Columns along the keys that the narrow kernel sums weights against: the fewest that the matrix unit takes."""
    return 16 if arch // 10 == 10 else 8


def narrow(arch: int, head_dim: int, *, stats: bool) -> Configuration:
    """The configuration of the narrow kernel, 16-bit inputs alone."""
    if head_dim > 128:
        return Configuration(64, 32, 8, 2, masked_n=16)
    if arch == 90:
        return Configuration(128, 64, 8, 2, bias_early=stats, descriptors=stats and head_dim > 64)
    if arch == 100:
        return Configuration(128, 64, 4, 2, bias_early=True, descriptors=head_dim > 64)
    return Configuration(128, 64, 4 if arch == 80 and head_dim <= 64 else 8, 2, bias_early=True, rows_anew=True)


def decode(
    arch: int, head_dim: int, element_bytes: int, *, stats: bool = False, has_eps: bool = False
) -> Configuration:
    """The configuration of the decode kernels; ``block_m`` is the most rows (queries × group heads) of one tile."""
    if element_bytes == 4:
        return Configuration(16, 16, num_warps=8, num_stages=2, slice_d=_SLICE)
    if head_dim > 128:
        # 64 rows spill up to 3 KB. Heads this wide come in groups that 16 hold. Eps's second accumulator is as wide.
        return Configuration(16, 32, num_warps=8 if has_eps else 4, num_stages=2)
    # Eps and statistics keep more of each row: 64 rows would spill up to 2 KB.
    rows = 64 if head_dim <= 64 else 32
    if has_eps or stats:
        rows //= 2
    keys = 32 if has_eps and (stats or head_dim > 64) else 64
    # With 64 keys and eps 32 rows would spill up to 144 B; few groups have more than 16.
    return Configuration(16 if has_eps and keys == 64 else rows, keys, num_warps=4, num_stages=3)


def reduction_warps(head_dim: int) -> int:
    """Warps of the kernel that joins decode's splits, which holds a row's outputs of all of them at once."""
    return 8 if head_dim > 128 else 4


def backward(
    arch: int, head_dim: int, element_bytes: int, *, has_eps: bool = False
) -> tuple[Configuration, Configuration]:
    """The configurations of the two backward kernels, by query and by key; eps keeps more of each score."""
    if element_bytes == 4:
        keys = 32 if head_dim <= 128 else 16
        by_query = Configuration(32, keys, num_warps=8, num_stages=1, slice_d=_SLICE)
        return by_query, Configuration(16, keys, num_warps=8, num_stages=1, slice_d=_SLICE)
    if head_dim > 128:
        # 64 queries, which wgmma would take, spill 150 to 400 B on sm_90.
        wide = Configuration(32, 32, num_warps=8, num_stages=1)
        if arch == 100:
            return Configuration(64, 32, num_warps=8, num_stages=1), wide
        return replace(wide, block_n=16) if has_eps else wide, wide
    square = Configuration(64, 64, num_warps=8, num_stages=1)
    if arch == 100:
        return square, square
    if arch == 90 and head_dim <= 64:
        by_query = Configuration(64, 64, num_warps=4, num_stages=2)
        return by_query, Configuration(32, 64, num_warps=4, num_stages=1) if has_eps else by_query
    if arch == 90:
        return square, Configuration(32, 64, num_warps=8 if has_eps else 4, num_stages=1)
    if head_dim > 64:
        return Configuration(64, 32, num_warps=8, num_stages=1) if has_eps else square, square
    by_key = Configuration(32, 64, num_warps=4, num_stages=1)
    if has_eps:
        by_key = Configuration(64, 32, num_warps=8, num_stages=1)
    return Configuration(64, 32, num_warps=4, num_stages=1), by_key

"""The shipped Triton kernels as cases to inspect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rls_bench.inspector.compile import Source, capability
from rls_bench.inspector.inspection import Case, Variant

if TYPE_CHECKING:
    from rls_kernels.triton import variants


def shipped(archs: Iterable[str]) -> list[Case]:
    """Every shipped variant for each of ``archs`` (``"sm_90"``), in the order of the kernels' own table."""
    from rls_kernels.triton import variants

    return [case(shipped, arch) for arch in archs for shipped in variants.shipped(capability(arch))]


def launchable(archs: Iterable[str]) -> list[Case]:
    """Every kernel that a launch on one of ``archs`` may compile, head dims 64, 128 and 256."""
    from rls_kernels.triton import variants

    return [case(found, arch) for arch in archs for found in variants.launchable(capability(arch))]


def case(shipped: variants.Variant, arch: str) -> Case:
    """One variant of the kernels' own as a case for ``arch``."""
    configuration = shipped.configuration
    variant = Variant(
        kernel=shipped.kernel,
        head_dim=shipped.head_dim,
        dtype=shipped.dtype,
        is_causal=shipped.is_causal,
        eps=shipped.eps,
        stats=shipped.stats,
        strength_layout=shipped.strength_layout,
        extra=shipped.extra,
    )
    source = Source(
        function=shipped.function,
        signature=shipped.signature,
        constexprs=shipped.constexprs,
        aligned=shipped.aligned,
        num_warps=configuration.num_warps,
        num_stages=configuration.num_stages,
    )
    products = shipped.products * shipped.head_dim
    return Case(variant, arch, source, configuration.block_m, configuration.block_n, products)


def select(cases: Sequence[Case], words: Sequence[str]) -> list[Case]:
    """The cases whose architecture and title have all of ``words`` (``["D64", "causal"]``)."""
    return [case for case in cases if set(words) <= {case.arch, *case.variant.title.split()}]

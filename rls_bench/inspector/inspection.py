"""One case (kernel, architecture, options): what it compiled to, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rls_bench.inspector import loops, products
from rls_bench.inspector.compile import Compiled, Source
from rls_bench.inspector.disassemble import usage
from rls_bench.inspector.occupancy import occupancy
from rls_bench.inspector.sass import Function


@dataclass(frozen=True)
class Variant:
    """What a kernel was asked to do; the columns that a table is read by."""

    kernel: str
    head_dim: int
    dtype: str
    is_causal: bool = False
    eps: bool = False
    stats: bool = False
    # none (unsteered), scalar, h, bh or bhq: the axes of λ, as in Problem.
    strength_layout: str = "scalar"
    # Words for what else tells it from others.
    extra: str = ""

    @property
    def title(self) -> str:
        """One line for tables: ``prefill D64 bf16 causal eps stats λ[bhq]``."""
        words = [self.kernel, f"D{self.head_dim}", self.dtype]
        words += [word for word, on in (("causal", self.is_causal), ("eps", self.eps), ("stats", self.stats)) if on]
        words.append("unsteered" if self.strength_layout == "none" else f"λ[{self.strength_layout}]")
        words += self.extra.split()
        return " ".join(words)


@dataclass(frozen=True)
class Case:
    """One variant on one architecture, with its source and the shape of its score tile.

    One pass of the hot loop handles ``block_m`` × ``block_n`` scores, or a multiple where the compiler unrolled it;
    ``multiply_adds`` a score (D + Dv for a forward pass) tell which.
    """

    variant: Variant
    arch: str
    source: Source
    block_m: int
    block_n: int
    multiply_adds: int


@dataclass(frozen=True)
class HotLoop:
    """An innermost loop with tensor-core instructions, counted a score.

    Every figure is thread instructions over scores: instructions × 32 × warps / (block_m · block_n · unroll). In a
    warp-specialised kernel the loops of all partitions count together.
    ``fp32`` are instructions of ``sass.FP32``; ``fp32_lanes`` count packed ones twice. ``mix`` is by group of
    ``sass.Instruction.group``. ``unroll`` is None where a tensor instruction's shape could not be read; figures are
    then those of one score tile a pass.
    """

    instructions: float
    fp32: float
    fp32_lanes: float
    mufu: float
    tensor_flops: float | None
    unroll: float | None
    mix: dict[str, float]


@dataclass(frozen=True)
class Inspection:
    """What one case compiled to. ``error`` is empty, or why there is nothing else to tell."""

    variant: Variant
    arch: str
    error: str = ""
    block_m: int = 0
    block_n: int = 0
    num_warps: int = 0
    num_stages: int = 0
    registers: int = 0
    stack_bytes: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0
    tensor_memory_columns: int = 0
    blocks_per_sm: int = 0
    warps_per_sm: int = 0
    limited_by: str = ""
    tensor_path: str = ""
    instructions: int = 0
    # First the loop that most scores pass through, see `rank`.
    hot_loops: list[HotLoop] = field(default_factory=list)

    @property
    def hot(self) -> HotLoop | None:
        """The loop that most scores pass through."""
        return self.hot_loops[0] if self.hot_loops else None

    @property
    def fits(self) -> bool:
        """Whether one SM of the architecture can hold a block."""
        return self.blocks_per_sm > 0

    @property
    def key(self) -> str:
        """Names the same case in a baseline."""
        return f"{self.arch} {self.variant.title}"


def measure(case: Case, compiled: Compiled, function: Function) -> Inspection:
    """Count what ``case`` became: ``function`` is the code of ``compiled``."""
    registers, stack_bytes = usage(compiled.cubin)
    held = occupancy(case.arch, registers, compiled.shared_bytes, compiled.num_warps, compiled.tensor_memory_columns)
    return Inspection(
        variant=case.variant,
        arch=case.arch,
        block_m=case.block_m,
        block_n=case.block_n,
        num_warps=compiled.num_warps,
        num_stages=case.source.num_stages,
        registers=registers,
        stack_bytes=stack_bytes,
        spill_bytes=function.spill_bytes,
        shared_bytes=compiled.shared_bytes,
        tensor_memory_columns=compiled.tensor_memory_columns,
        blocks_per_sm=held.blocks,
        warps_per_sm=held.warps,
        limited_by=held.limited_by,
        tensor_path=function.path,
        instructions=len(function.instructions),
        hot_loops=[counted for counted, _ in rank(case, compiled, function)],
    )


def rank(case: Case, compiled: Compiled, function: Function) -> list[tuple[HotLoop, loops.Loop]]:
    """Hot loops, first that of fully visible tiles: of those that do a whole tile's products, the cheapest a score.

    The other loops of a kernel mask, for diagonal and last tiles alone, or do a part of the products.
    """
    hot = loops.hot_loops(function)
    if compiled.partition_warps:
        # Each partition walks over the keys in a loop of its own; a score costs what all of them issue for it. With
        # more than one loop of products it cannot be told which belong together, and nothing is counted.
        together = loops.working_loops(function)
        warps = max(compiled.partition_warps)
        return [(_count(case, function, together, warps), loop) for loop in hot] if len(hot) == 1 else []
    counted = [(_count(case, function, [loop], compiled.num_warps), loop) for loop in hot]

    def order(pair: tuple[HotLoop, loops.Loop]) -> tuple[bool, float]:
        is_part = pair[0].unroll is not None and pair[0].unroll < 0.75
        return is_part, pair[0].instructions

    return sorted(counted, key=order)


def _count(case: Case, function: Function, together: Sequence[loops.Loop], num_warps: int) -> HotLoop:
    """Figures a score of loops that pass over the same tile, each run by ``num_warps`` warps."""
    scores = case.block_m * case.block_n
    found = [products.multiply_adds(function, loop, num_warps) for loop in together]
    done = None if None in found else sum(each for each in found if each)
    unroll = done / (scores * case.multiply_adds) if done else None
    # A tile more or less of padding (an extra k-step) is not an unrolled loop.
    tiles = max(1, round(unroll)) if unroll else 1
    scores_a_thread = scores * tiles / (num_warps * 32)
    mix = sum((loop.mix for loop in together), Counter[str]())

    def a_score(number: int) -> float:
        return round(number / scores_a_thread, 4)

    return HotLoop(
        instructions=a_score(mix.total()),
        fp32=a_score(mix["fp32"]),
        fp32_lanes=a_score(sum(loop.fp32_lanes for loop in together)),
        mufu=a_score(mix["mufu"]),
        tensor_flops=2 * done / (scores * tiles) if done else None,
        unroll=unroll,
        mix={group: a_score(number) for group, number in sorted(mix.items())},
    )

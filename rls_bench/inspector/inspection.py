"""One case (kernel, architecture, options) compiled, counted and cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from rls_bench.errors import InspectionError
from rls_bench.inspector import compile as compiler
from rls_bench.inspector import sass
from rls_bench.inspector.occupancy import LIMITS, occupancy


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

    @property
    def title(self) -> str:
        """One line for tables: ``prefill D64 bf16 causal eps stats λ[bhq]``."""
        words = [self.kernel, f"D{self.head_dim}", self.dtype]
        words += [word for word, on in (("causal", self.is_causal), ("eps", self.eps), ("stats", self.stats)) if on]
        words.append("unsteered" if self.strength_layout == "none" else f"λ[{self.strength_layout}]")
        return " ".join(words)


@dataclass(frozen=True)
class Case:
    """One variant on one architecture, with its source and the shape of its score tile.

    One pass of the hot loop handles ``block_m`` × ``block_n`` scores, or a multiple where the compiler unrolled it;
    ``multiply_adds`` a score (D + Dv for a forward pass) tell which.
    """

    variant: Variant
    arch: str
    source: compiler.Source
    block_m: int
    block_n: int
    multiply_adds: int


@dataclass(frozen=True)
class HotLoop:
    """An innermost loop with tensor-core instructions, counted a score.

    Every figure is thread instructions over scores: instructions × 32 × warps / (block_m · block_n · unroll).
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
    # The cheapest loop a score comes first: the other one of a causal kernel masks, and runs on diagonal tiles alone.
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


def inspect(case: Case) -> Inspection:
    """Compile ``case`` in this process and count. Raises InspectionError where it cannot be compiled."""
    return measure(case, compiler.compile_for(case.source, case.arch))


def measure(case: Case, compiled: compiler.Compiled) -> Inspection:
    """Count what ``compiled`` holds."""
    # Helper functions (tcgen05's guard rails) stand in the same listing; the kernel is the one with the most code.
    function = max(sass.parse(compiled.sass), key=lambda function: len(function.instructions))
    held = occupancy(
        case.arch,
        compiled.registers,
        compiled.shared_bytes,
        compiled.num_warps,
        compiled.tensor_memory_columns,
    )
    hot_loops = [count(case, function, loop, compiled.num_warps) for loop in sass.hot_loops(function)]
    return Inspection(
        variant=case.variant,
        arch=case.arch,
        block_m=case.block_m,
        block_n=case.block_n,
        num_warps=compiled.num_warps,
        num_stages=case.source.num_stages,
        registers=compiled.registers,
        stack_bytes=compiled.stack_bytes,
        spill_bytes=compiled.spill_bytes,
        shared_bytes=compiled.shared_bytes,
        tensor_memory_columns=compiled.tensor_memory_columns,
        blocks_per_sm=held.blocks,
        warps_per_sm=held.warps,
        limited_by=held.limited_by,
        tensor_path=function.path,
        instructions=len(function.instructions),
        hot_loops=sorted(hot_loops, key=lambda loop: loop.instructions),
    )


def count(case: Case, function: sass.Function, loop: sass.Loop, num_warps: int) -> HotLoop:
    """Figures a score of one loop."""
    scores = case.block_m * case.block_n
    done = sass.multiply_adds(function, loop, num_warps)
    unroll = done / (scores * case.multiply_adds) if done else None
    # A tile more or less of padding (an extra k-step) is not an unrolled loop.
    tiles = max(1, round(unroll)) if unroll else 1
    scores_a_thread = scores * tiles / (num_warps * 32)
    return HotLoop(
        instructions=len(loop.instructions) / scores_a_thread,
        fp32=loop.mix["fp32"] / scores_a_thread,
        fp32_lanes=loop.fp32_lanes / scores_a_thread,
        mufu=loop.mix["mufu"] / scores_a_thread,
        tensor_flops=2 * done / (scores * tiles) if done else None,
        unroll=unroll,
        mix={group: number / scores_a_thread for group, number in sorted(loop.mix.items())},
    )


def inspect_all(
    cases: Iterable[Case],
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Callable[[Inspection], None] = lambda _: None,
) -> list[Inspection]:
    """Inspect every case over ``workers`` processes, in the order given; ``progress`` is called as each is done.

    A case that cannot be compiled comes back with its ``error``, one that crashes the compiler too; neither ends
    the others. Results lie in ``cache`` afterwards, errors don't.
    """
    wanted = list(cases)
    done: dict[int, Inspection] = {}
    for index, case in enumerate(wanted):
        if cache is not None and (kept := cache.get(case)) is not None:
            done[index] = kept
            progress(kept)
    crashed: list[int] = []

    def collect(index: int, future: Future[Inspection]) -> None:
        case = wanted[index]
        try:
            found = future.result()
            if cache is not None:
                cache.put(case, found)
        except InspectionError as error:
            found = Inspection(case.variant, case.arch, error=str(error))
        except BrokenProcessPool:
            crashed.append(index)
            return
        done[index] = found
        progress(found)

    left = [index for index in range(len(wanted)) if index not in done]
    if left:
        with _pool(min(workers or os.cpu_count() or 1, len(left))) as pool:
            futures = {pool.submit(inspect, wanted[index]): index for index in left}
            for future in as_completed(futures):
                collect(futures[future], future)
    # One compiler crash takes the pool and every waiting case with it: try each of those in a process of its own.
    for index in crashed.copy():
        with _pool(1) as pool:
            future = pool.submit(inspect, wanted[index])
            if isinstance(future.exception(), BrokenProcessPool):
                case = wanted[index]
                done[index] = Inspection(case.variant, case.arch, error=f"{case.arch}: the compiler crashed")
                progress(done[index])
            else:
                collect(index, future)
    return [done[index] for index in range(len(wanted))]


def _pool(workers: int) -> Executor:
    # A spawned process has no threads of the parent's to inherit, which a forked one may hang on.
    return ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn"))


class Cache:
    """Inspections on disk, one JSON file a case, named by everything that the result depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._toolchain = compiler.toolchain()
        # The counting rules are code, too: a change of them makes every kept result another one.
        rules = (Path(__file__).parent / name for name in ("compile.py", "inspection.py", "occupancy.py", "sass.py"))
        self._rules = hashlib.sha256(b"".join(path.read_bytes() for path in rules)).hexdigest()

    def get(self, case: Case) -> Inspection | None:
        """The kept inspection of ``case``, or None; a file that cannot be read counts as none."""
        try:
            return msgspec.json.decode(self._path(case).read_bytes(), type=Inspection)
        except (OSError, msgspec.MsgspecError):
            return None

    def put(self, case: Case, inspection: Inspection) -> None:
        """Keep ``inspection``; two processes may keep the same one at a time."""
        path = self._path(case)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(inspection))
        part.replace(path)

    def _path(self, case: Case) -> Path:
        # Triton's key of the function covers its source and that of every function it calls.
        parts: list[Any] = [
            compiler.load(case.source).cache_key,
            self._toolchain,
            self._rules,
            case.arch,
            sorted(LIMITS[case.arch].__dict__.items()),
            case.variant,
            case.block_m,
            case.block_n,
            case.multiply_adds,
            case.source.function,
            sorted(case.source.signature.items()),
            sorted((name, str(value)) for name, value in case.source.constexprs.items()),
            case.source.aligned,
            case.source.num_warps,
            case.source.num_stages,
            sorted((name, str(value)) for name, value in case.source.options.items()),
        ]
        return self.folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"

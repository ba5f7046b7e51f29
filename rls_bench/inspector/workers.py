"""Cases compiled, read back and counted over processes, with what was inspected before taken from the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context

from rls_bench.errors import InspectionError
from rls_bench.inspector import disassemble, sass
from rls_bench.inspector.cache import Cache
from rls_bench.inspector.compile import Compiled, compile_for
from rls_bench.inspector.inspection import Case, Inspection, measure, rank


def inspect_all(
    cases: Iterable[Case],
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Inspection]:
    """Inspect every case over ``workers`` processes, in the order given; ``progress`` is called once a case.

    A case that cannot be compiled comes back with its ``error``, one that crashes the compiler too; neither ends
    the others. Results lie in ``cache`` afterwards, errors don't. A cache that ignores what it kept has everything
    compiled again, whatever Triton's own cache holds.
    """
    wanted = list(cases)
    # Some variants are the same code (λ as a scalar or a head): compile it once.
    twins: dict[str, list[int]] = {}
    for index, case in enumerate(wanted):
        twins.setdefault(repr((case.arch, case.source)), []).append(index)
    found: dict[int, Inspection] = {}
    left = {}
    for first, *_ in twins.values():
        kept = cache.get(wanted[first]) if cache is not None else None
        if kept is None:
            left[first] = wanted[first]
        else:
            found[first] = kept
            progress()
    again = cache is not None and cache.ignore_kept
    for index, inspection in _inspected(left, workers or os.cpu_count() or 1, again, progress).items():
        found[index] = inspection
        if cache is not None and not inspection.error:
            cache.put(wanted[index], inspection)
    done = {}
    for first, *others in twins.values():
        done[first] = replace(found[first], variant=wanted[first].variant)
        for index in others:
            done[index] = replace(found[first], variant=wanted[index].variant)
            progress()
    return [done[index] for index in range(len(wanted))]


def hot_listing(case: Case) -> tuple[sass.Instruction, ...]:
    """Compile ``case`` again and return its hot loop's instructions, empty where it has none."""
    compiled = compile_for(case.source, case.arch)
    (function,) = disassemble.functions(case.arch, [disassemble.code(compiled.cubin)])
    ranked = rank(case, compiled, function)
    return ranked[0][1].instructions if ranked else ()


def _inspected(
    cases: dict[int, Case], workers: int, again: bool, progress: Callable[[], None]
) -> dict[int, Inspection]:
    """Inspections of ``cases`` by the same numbers: each compiled by itself, an architecture's counted together."""
    if not cases:
        return {}
    done: dict[int, Inspection] = {}
    compiled: dict[int, Compiled] = {}
    # A crash of the compiler takes the pool and every waiting case with it: those are tried again one by one.
    crashed: list[int] = []

    def keep(index: int, future: Future[Compiled]) -> None:
        try:
            compiled[index] = future.result()
        except InspectionError as error:
            done[index] = Inspection(cases[index].variant, cases[index].arch, error=str(error))
        progress()

    left = {arch: sum(case.arch == arch for case in cases.values()) for arch in {case.arch for case in cases.values()}}
    counting: dict[str, Future[list[Inspection]]] = {}
    with _pool(min(workers, len(cases))) as pool:
        futures = {pool.submit(compile_for, case.source, case.arch, again): index for index, case in cases.items()}
        for future in as_completed(futures):
            index = futures[future]
            arch = cases[index].arch
            if isinstance(future.exception(), BrokenProcessPool):
                crashed.append(index)
                continue
            keep(index, future)
            left[arch] -= 1
            # Nothing is handed to a broken pool; that is counted below.
            if not left[arch] and not crashed:
                with suppress(BrokenProcessPool):
                    counting[arch] = pool.submit(_count, *_of(arch, cases, compiled))
    for index in crashed:
        with _pool(1) as pool:
            future = pool.submit(compile_for, cases[index].source, cases[index].arch, again)
            if isinstance(future.exception(), BrokenProcessPool):
                arch = cases[index].arch
                done[index] = Inspection(cases[index].variant, arch, error=f"{arch}: the compiler crashed")
                progress()
            else:
                keep(index, future)
    for arch in left:
        # Before a crash, an architecture may have been counted, or was about to be.
        if arch in counting and counting[arch].exception() is None:
            counted = counting[arch].result()
        else:
            counted = _count(*_of(arch, cases, compiled))
        done |= zip((index for index in compiled if cases[index].arch == arch), counted, strict=True)
    return done


def _of(arch: str, cases: dict[int, Case], compiled: dict[int, Compiled]) -> tuple[list[Case], list[Compiled]]:
    chosen = [index for index in compiled if cases[index].arch == arch]
    return [cases[index] for index in chosen], [compiled[index] for index in chosen]


def _count(cases: Sequence[Case], compiled: Sequence[Compiled]) -> list[Inspection]:
    """Inspections of one architecture's ``cases``, whose code is read back in one go."""
    if not cases:
        return []
    functions = disassemble.functions(cases[0].arch, [disassemble.code(one.cubin) for one in compiled])
    return [measure(*one) for one in zip(cases, compiled, functions, strict=True)]


def _pool(workers: int) -> Executor:
    # A spawned process has no threads of the parent's to inherit, which a forked one may hang on.
    return ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn"))

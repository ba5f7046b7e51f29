"""The bars of the CPU kernel, each a ratio of two calls timed in turns: ``python -m benchmarks.cpu_bars``.

A group's calls take turns in random order, so that drift hits all alike; a bar compares medians within its group. Bars
that need AVX-512-BF16 are reported as not measurable where the CPU lacks it. asv keeps the same figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

PREFILL = {"B1 H32 L1024 D128": (32, 1024, 128), "B1 H8 L4096 D64": (8, 4096, 64)}
PRODUCT_SIDE = 2048
COPY_BYTES = 1 << 28
LONG = 65536


@dataclass(frozen=True)
class Figure:
    """One bar: what was found beside what is wanted; ``found`` is None where this machine cannot measure it.

    A figure without a bar stands beside others for comparison.
    """

    name: str
    found: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measurable here"
        if self.at_least is None and self.at_most is None:
            return "no bar"
        met = self.found >= self.at_least if self.at_least is not None else self.found <= (self.at_most or 0)
        return "met" if met else "not met"


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns in random order after one warm-up."""
    import random
    import statistics
    import time

    for call in calls.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            began = time.perf_counter()
            calls[name]()
            samples[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def prepared(backend: str, problem: Any) -> Callable[[], Any]:
    """The timed call of a backend on the drawn inputs of ``problem``."""
    from rls_bench.backends import registry
    from rls_bench.planning.repeated import repeated
    from rls_bench.problems.draw import draw

    return repeated(registry.get(backend), draw(problem))


def prefill_bars(dtype: str, rounds: int) -> list[Figure]:
    """Speed against torch's kernels and its matrix product, and what each option costs."""
    import torch

    from rls_bench.problems.problem import Problem

    figures = []
    for shape, (heads, length, head_dim) in PREFILL.items():
        steered = Problem(1, heads, heads, length, length, head_dim, head_dim, dtype)  # type: ignore[arg-type]
        a, b = (torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, dtype=getattr(torch, dtype)) for _ in range(2))
        variants = {
            "cpu": steered,
            "λ = 0": steered.unsteered(),
            "causal": replace(steered, is_causal=True),
            "eps": replace(steered, eps=1e-6),
            "stats": replace(steered, return_stats=True),
        }
        calls = {name: prepared("cpu", problem) for name, problem in variants.items()}
        # What an option costs is held to a few percent, by which single calls stray: those take turns on their own,
        # four times as often.
        options = medians({name: call for name, call in calls.items() if name != "causal"}, 4 * rounds)
        calls |= {name: prepared(name, steered) for name in ("sdpa-cpu", "unsteered")}
        calls["product"] = lambda a=a, b=b: a @ b  # type: ignore[misc]
        taken = medians(calls, rounds)
        work = f"{dtype} {shape}"
        if dtype == "bfloat16":
            rate, product_rate = steered.flops / taken["cpu"], 2 * PRODUCT_SIDE**3 / taken["product"]
            figures += [
                Figure(f"{work}: speed / sdpa-cpu", taken["sdpa-cpu"] / taken["cpu"], at_least=3.5),
                Figure(f"{work}: speed / unsteered SDPA", taken["unsteered"] / taken["cpu"], at_least=3.3),
                Figure(f"{work}: rate / matrix-product rate", rate / product_rate, at_least=0.75),
            ]
        else:
            figures.append(Figure(f"{work}: speed / sdpa-cpu", taken["sdpa-cpu"] / taken["cpu"], at_least=1.0))
        if length >= 4096:
            figures.append(Figure(f"{work}: causal / full time", taken["causal"] / taken["cpu"], at_most=0.58))
        figures += [
            Figure(f"{work}: steered / unsteered time", options["cpu"] / options["λ = 0"], at_most=1.02),
            Figure(f"{work}: exact eps / eps 0 time", options["eps"] / options["cpu"], at_most=1.05),
            Figure(f"{work}: stats on / off time", options["stats"] / options["cpu"], at_most=1.12),
        ]
    return figures


def decode_bars(rounds: int) -> list[Figure]:
    """Bytes of the cache a second in one decode step, against the bytes that a large copy reads and writes.

    Beside them the rate at which torch sums the same buffer, whatever its bar: what reading alone reaches here.
    """
    import torch

    from rls_bench.problems.problem import Problem

    problem = Problem(1, 32, 8, 1, 32768, 128, 128, "bfloat16")
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    # Words of 8 bytes, so that adding them costs less than reading them.
    words = source.view(torch.int64)
    calls = {"cpu": prepared("cpu", problem), "copy": lambda: target.copy_(source), "read": words.sum}
    # Each takes some 10 ms only, and a neighbour's traffic comes and goes.
    taken = medians(calls, 4 * rounds)
    copied, read = 2 * COPY_BYTES / taken["copy"], COPY_BYTES / taken["read"]
    return [
        Figure(
            "decode Lq1 Lk32k H32/8 D128 bf16: bandwidth / copy",
            problem.input_bytes / taken["cpu"] / copied,
            at_least=0.7,
        ),
        Figure("plain read: bandwidth / copy", read / copied),
        Figure("plain read, GB/s", read / 1e9),
        Figure("copy, read and written, GB/s", copied / 1e9),
    ]


def memory_bar(query_length: int = LONG) -> Figure:
    """Peak resident bytes of one long call beyond inputs and output, in sizes of key and value.

    Call it in a fresh process: memory that earlier calls left with the allocator would hide what this one takes.
    """
    from rls_bench.problems.problem import Problem

    problem = Problem(1, 1, 1, query_length, LONG, 64, 64, "bfloat16", inputs="random")
    call = prepared("cpu", problem)
    # A small call first, so that thread stacks and the library itself aren't counted.
    prepared("cpu", replace(problem, query_length=256, key_length=256))()
    before = _reset_peak()
    call()
    key_and_value = 2 * LONG * 64 * 2
    beyond = (_status("VmHWM") - before - problem.output_bytes) / key_and_value
    return Figure(f"memory beyond inputs and output at L {LONG}, in sizes of k and v", beyond, at_most=2.0)


def _reset_peak() -> int:
    """Resident bytes now, from which the peak counts again."""
    from pathlib import Path

    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    from pathlib import Path

    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


_COMPILE = Figure("first-use compile, seconds", None, at_most=20.0)


def compile_bar() -> Figure:
    """Seconds from an empty cache to loaded kernels of prefill and decode in float32, in a process of its own."""
    import os
    import subprocess
    import sys
    import tempfile

    code = "from rls_kernels.cpu import library, trial; assert not trial.failure(); "
    code += "print(library.library().compile_seconds)"
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return replace(_COMPILE, found=float(done.stdout))


def kept_compile_bar() -> Figure:
    """``compile_bar`` as it was for these very sources, flags and compiler, whose hash names the folder that it is kept
    in; measured where they are new.
    """
    from rls_kernels.cpu import build

    kept = build.build().with_suffix(".seconds")
    if kept.exists():
        return replace(_COMPILE, found=float(kept.read_text()))
    figure = compile_bar()
    kept.write_text(f"{figure.found}")
    return figure


def measure(rounds: int = 15, compiling: Callable[[], Figure] = compile_bar) -> list[Figure]:
    """Every bar on this machine."""
    from rls_kernels.cpu import library

    figures = prefill_bars("float32", rounds)
    if library.library().isa() in ("avx512_bf16", "amx_bf16"):
        figures += prefill_bars("bfloat16", rounds)
    else:
        figures.append(Figure("every bfloat16 prefill bar: needs AVX-512-BF16", None))
    return [*figures, *decode_bars(rounds), _in_a_fresh_process(memory_bar), compiling()]


def _in_a_fresh_process(bar: Callable[[], Figure]) -> Figure:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(bar).result()


class CpuBars:
    """One figure for asv: how near the bars are to being missed. Lower is better, as asv has it."""

    timeout = 1800
    version = "1"

    def setup_cache(self) -> list[Figure]:
        # Fewer rounds than a verdict on the bars takes: a history has many commits to see a trend in.
        return measure(rounds=3, compiling=kept_compile_bar)

    def track_worst_bar(self, figures: list[Figure]) -> float:
        """The figure that is furthest over its bar, in units of the bar: at most 1 where all are met."""
        shares = [
            figure.at_least / figure.found if figure.at_least is not None else figure.found / (figure.at_most or 1)
            for figure in figures
            if figure.found is not None and figure.verdict != "no bar"
        ]
        return max(shares)

    track_worst_bar.unit = "of the bar"  # type: ignore[attr-defined]


def main() -> None:
    import sys
    from datetime import date

    from rich.console import Console
    from rich.table import Table

    from rls_bench.machines import host

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    table = Table("bar", "found", "wanted", "verdict", title=f"{host.current().title}, {date.today()}")
    for figure in measure(rounds):
        wanted = (
            f"≥ {figure.at_least:g}"
            if figure.at_least is not None
            else f"≤ {figure.at_most:g}"
            if figure.at_most
            else ""
        )
        table.add_row(figure.name, "" if figure.found is None else f"{figure.found:.3g}", wanted, figure.verdict)
    Console().print(table)


if __name__ == "__main__":
    main()

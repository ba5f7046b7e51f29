"""What the kernels that a launch may compile on sm_90 spill, by version of Triton: ``python -m benchmarks.spills``.

``python -m benchmarks.spills 3.6.0 fp32 D128`` compiles those whose titles have all of these words, without words all
578, over two processes (10 to 14 minutes of CPU time). It lists what spills, and ends with 1 where a bar is missed. A
version that isn't this environment's is installed in a folder of its own. Needs no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rls_bench.inspector.cases import Case

ARCH = "sm_90"
NEWEST, OLDEST = "3.7.1", "3.6.0"
# Of one kernel under the oldest Triton that is supported.
MOST_OF_OLDEST = 64
# Bytes under the newest, where the bar is none: docs/triton-kernels.md lists them with their reason.
LISTED = {
    title.replace("D64", f"D64 {dtype}"): spilt
    for dtype in ("bf16", "fp16")
    for title, spilt in {
        "backward-key D64 λ[scalar] lengths": 16,
        "backward-key D64 λ[bhq] lengths": 16,
        "backward-key D64 causal λ[scalar] lengths": 36,
        "backward-key D64 causal λ[bhq] lengths": 52,
        "decode D64 causal eps λ[scalar] rows[16] b[k] lengths": 4,
    }.items()
}
WORKERS = 2
_COMPILE = "from benchmarks import spills; spills.compile_here()"


def missed(version: str, spilt_bytes: Mapping[str, int]) -> Iterator[str]:
    """The bars that are missed, a line each: nothing but what is listed, and little under the oldest Triton."""
    for title, spilt in spilt_bytes.items():
        most = MOST_OF_OLDEST if version == OLDEST else LISTED.get(title, 0)
        if spilt > most:
            yield f"triton {version}: {title}: {spilt} B (wanted at most {most})"


def launchable(words: Sequence[str] = ()) -> list[Case]:
    """The cases with these words in their titles, each kernel once: some options compile to the same code."""
    from rls_bench.inspector import cases

    first: dict[str, Case] = {}
    for case in cases.launchable([ARCH]):
        first.setdefault(repr(case.source), case)
    return cases.select(list(first.values()), words)


def burdened(found: Iterable[Case]) -> list[Case]:
    """Of each kernel, function, dtype and head dim the case with the most options, which holds the most registers."""

    def burden(case: Case) -> tuple[int, int, bool]:
        variant = case.variant
        asked = sum((variant.is_causal, variant.eps, variant.stats, variant.strength_layout == "bhq"))
        return asked, case.block_m, "b[hk]" in variant.extra

    chosen: dict[tuple[str, str, str, int], Case] = {}
    for case in sorted(found, key=burden):
        variant = case.variant
        chosen[variant.kernel, case.source.function, variant.dtype, variant.head_dim] = case
    return list(chosen.values())


def compiled(version: str, found: Sequence[Case]) -> dict[str, int]:
    """Spilt bytes by title of ``found``, compiled with that version of Triton in processes of its own.

    Raises CalledProcessError where one doesn't compile, RlsBenchError where the version can't be installed.
    """
    from rls_bench.backends.sources import PACKAGES
    from rls_bench.bisect import environments

    paths = [str(Path(__file__).parents[1])]
    if version != installed("triton"):
        paths.insert(0, str(environments.of_version("triton", version).path / PACKAGES))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    asked = json.dumps([version, [case.variant.title for case in found]])
    line = [sys.executable, "-c", _COMPILE]
    done = subprocess.run(line, env=environment, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    by_title: dict[str, int] = json.loads(done.stdout)
    return by_title


def compile_here() -> None:
    """Print the spilt bytes of the titles on standard input as JSON; before them stands the version of Triton."""
    import triton

    wanted, titles = json.load(sys.stdin)
    if triton.__version__ != wanted:
        raise SystemExit(f"wanted triton {wanted}; imported {triton.__version__}")
    print(json.dumps(spilt([case for case in launchable() if case.variant.title in titles])))


def spilt(found: Sequence[Case]) -> dict[str, int]:
    """Spilt bytes by title of ``found``, compiled with the Triton at hand. Raises SystemExit where one can't be."""
    from rls_bench.inspector import workers

    inspected = workers.inspect_all(found, WORKERS)
    failed = [f"{each.key}: {each.error}" for each in inspected if each.error]
    if failed:
        raise SystemExit("\n".join(failed))
    return {each.variant.title: each.spill_bytes for each in inspected}


def main(version: str = NEWEST, *words: str) -> int:
    """List what spills; 1 where a bar is missed."""
    found = compiled(version, launchable(words))
    spilling = {title: bytes_ for title, bytes_ in found.items() if bytes_}
    for title, bytes_ in spilling.items():
        print(f"{bytes_:6} B  {title}")
    print(f"triton {version}, {ARCH}: {len(spilling)} of {len(found)} kernels spill")
    lines = list(missed(version, found))
    for line in lines:
        print(f"missed: {line}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

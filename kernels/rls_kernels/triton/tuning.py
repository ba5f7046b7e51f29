"""Which configuration of the prefill kernel is fastest here: measured once a shape class, kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import triton

from rls_kernels.triton.configurations import Configuration

# Queries, keys, warps and stages.
_TILES = ((128, 64, 4, 2), (128, 64, 8, 3), (128, 32, 4, 3), (128, 128, 8, 2), (64, 64, 4, 3), (64, 32, 4, 2))
# Full float32 spills with more.
_SLICED_TILES = ((64, 32, 8, 2), (64, 16, 8, 2), (32, 32, 8, 2), (32, 16, 8, 2))
# How Triton says that a pass of its own failed, a plain RuntimeError.
_FAILED_PASS = "PassManager::run failed"

Timer = Callable[[Callable[[], object]], float]


def shape_class(
    dtype: torch.dtype, head_dims: tuple[int, int], lengths: tuple[int, int], programs: int, options: Iterable[bool]
) -> str:
    """What a choice is made for: exact dtype, head dims and options; lengths and B·Hq to the next power of two."""
    sizes = "x".join(str(triton.next_power_of_2(size)) for size in (*lengths, programs))
    flags = "".join("01"[option] for option in options)
    return f"{str(dtype).removeprefix('torch.')} {head_dims[0]}/{head_dims[1]} {sizes} {flags}"


def candidates(first: Configuration) -> list[Configuration]:
    """``first``, the table's own, and its neighbours: other loads, block sizes, warps and stages."""
    found = [first]
    # In full float32 no bias is loaded ahead.
    if not first.slice_d:
        found.append(replace(first, bias_early=not first.bias_early))
    if first.descriptors:
        found.append(replace(first, descriptors=False))
    for block_m, block_n, num_warps, num_stages in _SLICED_TILES if first.slice_d else _TILES:
        other = replace(first, block_m=block_m, block_n=block_n, num_warps=num_warps, num_stages=num_stages)
        if first.slice_d:
            other = replace(other, masked_n=block_n)
        if other not in found:
            found.append(other)
    return found


def tune(
    device: str,
    problem: str,
    first: Configuration,
    run: Callable[[Configuration], object],
    timer: Timer = triton.testing.do_bench,
) -> Configuration:
    """The kept choice for ``problem`` on ``device``, or else the fastest of the candidates, which is kept from now on.

    ``run`` launches the kernel once with a configuration; one that the device refuses (shared memory, registers) or
    that Triton or ptxas can't compile is passed over. Raises the last refusal where every candidate is refused.
    """
    if (chosen := kept(device, problem)) is not None:
        return chosen
    times: dict[Configuration, float] = {}
    refusal: Exception | None = None
    for configuration in candidates(first):
        try:
            times[configuration] = timer(partial(run, configuration))
        except triton.TritonError as error:
            refusal = error
        except RuntimeError as error:
            # Anything else may have left the device unusable.
            if _FAILED_PASS not in str(error):
                raise
            refusal = error
    if not times:
        raise refusal or RuntimeError("no candidates")
    fastest = min(times, key=lambda configuration: times[configuration])
    _keep(device, problem, fastest)
    return fastest


def kept(device: str, problem: str) -> Configuration | None:
    """The choice on disk for ``problem`` on ``device`` and these versions; a file that can't be read has none."""
    fields = _load(_path()).get(_name(device), {}).get(problem)
    try:
        return Configuration(**fields) if fields else None
    except TypeError:
        # Another version of the table wrote it.
        return None


def _keep(device: str, problem: str, configuration: Configuration) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    _load.cache_clear()
    every = _load(path)
    every.setdefault(_name(device), {})[problem] = asdict(configuration)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(every, indent=1, sort_keys=True))
    part.replace(path)


def _path() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rls_bench" / "triton-configurations.json"


def _name(device: str) -> str:
    return f"{device}, torch {torch.__version__}, triton {triton.__version__}"


@cache
def _load(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}

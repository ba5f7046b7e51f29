"""Named lists of problems that the package carries: a workload file each, beside this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from rls_bench.problems import workload
from rls_bench.problems.problem import Problem


def names() -> list[str]:
    """Names of every suite."""
    return sorted(file.name.removesuffix(".toml") for file in files(__name__).iterdir() if file.name.endswith(".toml"))


def default(device: str, cpu_isa: Sequence[str] = ()) -> str:
    """The suite that ``rls-bench run`` takes where none is named; ``cpu_isa`` as ``host.current()`` spells it.

    A CPU gets the dtype that it computes in: where it has no bfloat16 products, torch's take ten times as long.
    """
    if device == "cuda":
        return "standard"
    return "laptop-bf16" if {"avx512_bf16", "amx_bf16"} & set(cpu_isa) else "laptop"


def get(name: str, device: str = "cpu", **changes: Any) -> list[Problem]:
    """The problems of suite ``name`` on ``device``, with ``changes`` to their fields (dtype, inputs, …).

    Raises ValueError for a name that is no suite.
    """
    return [replace(one.problem, device=device, **changes) for one in read(name).problems]


@cache
def read(name: str) -> workload.Workload:
    """The workload of suite ``name``, on a CPU. Raises ValueError for a name that is no suite."""
    if name not in names():
        raise ValueError(f"suite: wanted one of {', '.join(names())}; got {name!r}")
    file = files(__name__).joinpath(f"{name}.toml")
    return workload.parse(file.read_text(encoding="utf-8"), f"suite {name}")

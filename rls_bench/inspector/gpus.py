"""Figures of real GPUs, for the models; what was recalled and not read in a source stays marked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Gpu:
    """One GPU. Rates are per SM and clock; ``unsure`` names the fields whose figure was recalled.

    ``clock_ghz`` is the boost clock, ``tensor_bf16`` dense FLOP with float32 accumulation, ``mufu`` base-2
    exponentials, ``fp32_fma`` lanes of FP32 arithmetic.
    """

    name: str
    arch: str
    sms: int
    clock_ghz: float
    l2_bytes: int
    dram_gb_s: float
    fp32_fma: int
    mufu: int
    tensor_bf16: int
    tensor_bf16_mma_sync: int
    unsure: frozenset[str]

    def mark(self, *fields: str) -> str:
        """``?`` where a figure that rests on these fields is unsure, else nothing."""
        return "?" if self.unsure & set(fields) else ""


# Names in the file, and here with their units.
_UNITS = {"clock": "clock_ghz", "l2": "l2_bytes", "dram": "dram_gb_s"}


@cache
def gpus() -> dict[str, Gpu]:
    """Every GPU of ``gpus.toml`` by name, in the file's order."""
    data = tomllib.loads(files("rls_bench.inspector").joinpath("gpus.toml").read_text(encoding="utf-8"))
    return {name: _gpu(name, data["arch"][row["arch"]], row) for name, row in data["gpu"].items()}


def _gpu(name: str, arch: dict, row: dict) -> Gpu:
    merged = {**arch, **row}
    # A gpu's own figure brings its own mark.
    unsure = {key for key in arch["unsure"] if key not in row} | set(row["unsure"])
    return Gpu(
        name=name,
        arch=merged["arch"],
        sms=merged["sms"],
        clock_ghz=merged["clock"],
        l2_bytes=merged["l2"],
        dram_gb_s=merged["dram"],
        fp32_fma=merged["fp32_fma"],
        mufu=merged["mufu"],
        tensor_bf16=merged["tensor_bf16"],
        tensor_bf16_mma_sync=merged.get("tensor_bf16_mma_sync", merged["tensor_bf16"]),
        unsure=frozenset(_UNITS.get(key, key) for key in unsure),
    )

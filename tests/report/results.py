"""A small run with something of everything that a report shows, hostile names among it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drawn_records import AGREED, CPU, GPU, launches, problem, record

from rls_bench.machines.machine import Machine
from rls_bench.records.record import Record

HOSTILE = '"><script>alert(1)</script> $x$ {{ 7 * 7 }}'
COSTS = {"unsteered": 0.8, "cpu": 1.0, "flex": 1.3, "sdpa-cpu": 1.5, HOSTILE: 2.0}


def run(machine: Machine = CPU, *, device: str = "cpu", speed: float = 1.0, seed: int = 1) -> list[Record]:
    """Three lengths of prefill and decode, the latter with two strengths, and statuses with their reasons."""
    rng = np.random.default_rng(seed)
    records = []
    for length in (256, 1024, 4096):
        for kind in ({"dtype": "bfloat16"}, {"query_length": 1}, {"query_length": 1, "strength": 4.0}):
            work = problem(length, device=device, **kind)
            for name, cost in COSTS.items():
                centre_ns = (work.flops / 300 * cost + 2e4) / speed
                samples = {"warm": launches(rng, centre_ns), "cold": launches(rng, centre_ns * 1.2)}
                agreed = replace(AGREED, error=2e-3 * cost, ratio=cost)
                records.append(record(name, work, samples, agreement=agreed, machine=machine, suite="standard"))
    refused = {"unavailable": "needs CUDA", "wrong": HOSTILE, "unsupported": "eps must be 0"}
    for length, (status, reason) in enumerate(refused.items(), start=64):
        records.append(record("triton", problem(length), status=status, reason=reason, machine=machine))
    return records


def gpu() -> list[Record]:
    """The same on a GPU, with what only its probes can say."""
    probes = {
        "nvml": {"joules_per_call": 0.5},
        "ncu": {"l2_hit_rate_percent": 81.0},
        "roofline": {"ceiling_tflop_per_s": 900.0, "ceiling_gb_per_s": 3000.0, "peak_percent": 40.0},
    }
    drawn = run(GPU, device="cuda", speed=1000.0, seed=2)
    return [replace(entry, probes=probes) if entry.samples_ns else entry for entry in drawn]

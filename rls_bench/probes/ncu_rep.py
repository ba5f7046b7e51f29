"""Reads .ncu-rep files, which Nsight Compute writes and its window opens, through NVIDIA's own ncu-report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rls_bench.errors import MissingPackage, ProfileError
from rls_bench.probes.ncu_metrics import Kernel, Metric, in_base_unit

_CAPABILITY = "device__attribute_compute_capability_"


def read(path: Path) -> list[Kernel]:
    """The kernels of a report in the order of their launches; needs no GPU and no driver.

    Raises MissingPackage without ncu-report, ProfileError where the file is no report or holds no kernel.
    """
    try:
        import ncu_report
    except ImportError:
        raise MissingPackage(
            "reading .ncu-rep files needs ncu-report: pip install 'rls-bench[profile]'; or export the report as CSV "
            f"where ncu is installed: ncu --import {path.name} --page raw --csv"
        ) from None
    try:
        report = ncu_report.load_report(str(path))
        ranges = [report.range_by_idx(i) for i in range(report.num_ranges())]
    # The binding raises bare Exception and its own types alike.
    except Exception as error:
        raise ProfileError(f"{path}: cannot be read as an Nsight Compute report ({error})") from error
    kernels = [_kernel(every.action_by_idx(i)) for every in ranges for i in range(every.num_actions())]
    if not kernels or any(kernel.name is None for kernel in kernels):
        raise ProfileError(f"{path}: holds no whole profiled kernel; wanted a .ncu-rep file as ncu wrote it")
    return kernels


def _kernel(action: Any) -> Kernel:
    metrics: dict[str, Metric] = {}
    for name in action.metric_names():
        metric = action.metric_by_name(name)
        value = metric.value() if metric.has_value() else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            metrics[name] = in_base_unit(float(value), metric.unit())
    parts = [metrics.get(f"{_CAPABILITY}{part}") for part in ("major", "minor")]
    capability = ".".join(f"{part.value:.0f}" for part in parts if part)
    return Kernel(action.name(), capability, metrics)

"""What Nsight Compute is asked for on each GPU generation, and what its metrics come to for one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rls_bench.probes.interface import Measures, finite

SECTOR_BYTES = 32

# ncu reports rates a little over 100 % when its replay passes differ; anything further off is no rate.
_RATE_SLACK_PERCENT = 1.0

_NANOSECONDS = {
    "ns": 1.0,
    "nsecond": 1.0,
    "us": 1e3,
    "usecond": 1e3,
    "ms": 1e6,
    "msecond": 1e6,
    "s": 1e9,
    "second": 1e9,
}
_PREFIXES = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_COUNTED = ("byte", "sector", "inst")


class Metric(NamedTuple):
    """A value in its base unit: ns, byte, sector, inst, %, or whatever else ncu wrote."""

    value: float
    unit: str


@dataclass
class Kernel:
    """One profiled launch: the kernel's name, its compute capability such as ``9.0``, its metrics by ncu's name."""

    name: str
    compute_capability: str
    metrics: dict[str, Metric]


def in_base_unit(value: float, unit: str) -> Metric:
    """``value`` without the prefix that ncu chose: microseconds to ns, Mbyte to byte."""
    if unit in _NANOSECONDS:
        return Metric(value * _NANOSECONDS[unit], "ns")
    if unit[:1] in _PREFIXES and unit[1:] in _COUNTED:
        return Metric(value * _PREFIXES[unit[0]], unit[1:])
    return Metric(value, unit)


class _Figure(NamedTuple):
    """A figure of ours: the ncu metrics that give it (the first that is there) and their unit.

    ``weights`` are the metrics whose sum weighs a launch in the mean over launches; empty where launches add up.
    """

    name: str
    metrics: tuple[str, ...]
    unit: str
    scale: float = 1.0
    weights: tuple[str, ...] = ()


_DURATION = "gpu__time_duration.sum"
_LOOKUPS = ("lts__t_sectors_lookup_hit.sum", "lts__t_sectors_lookup_miss.sum")


def _rate(name: str, metric: str, *weights: str) -> _Figure:
    return _Figure(name, (metric,), "%", weights=weights or (_DURATION,))


def _sectors(name: str, metric: str) -> _Figure:
    return _Figure(name, (metric,), "sector", scale=SECTOR_BYTES)


_FIGURES = (
    _Figure("duration_ns", (_DURATION,), "ns"),
    _rate("l2_hit_rate_percent", "lts__t_sector_hit_rate.pct", *_LOOKUPS),
    _rate("l2_read_hit_rate_percent", "lts__t_sector_op_read_hit_rate.pct", "lts__t_sectors_op_read.sum"),
    _sectors("l2_read_bytes", "lts__t_sectors_op_read.sum"),
    _sectors("l2_write_bytes", "lts__t_sectors_op_write.sum"),
    # Chips with two L2 partitions count what one fetches from the other as reads; this is what the SMs asked for.
    _sectors("l2_read_by_sm_bytes", "lts__t_sectors_srcunit_tex_op_read.sum"),
    _Figure("dram_bytes", ("dram__bytes.sum",), "byte"),
    _Figure("dram_read_bytes", ("dram__bytes_read.sum", "dram__bytes_op_read.sum"), "byte"),
    _Figure("dram_write_bytes", ("dram__bytes_write.sum", "dram__bytes_op_write.sum"), "byte"),
    _rate("dram_throughput_percent", "dram__throughput.avg.pct_of_peak_sustained_elapsed"),
    _rate("tensor_pipe_percent", "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"),
    # The XU pipe holds MUFU, the unit that computes exp2.
    _Figure("mufu_instructions", ("sm__inst_executed_pipe_xu.sum",), "inst"),
    _rate("mufu_pipe_percent", "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active"),
    _rate("occupancy_percent", "sm__warps_active.avg.pct_of_peak_sustained_active"),
)

# GeForce 50xx, compute capability 12, dropped the shorter names.
_RENAMED = {
    "dram__bytes_read.sum": "dram__bytes_op_read.sum",
    "dram__bytes_write.sum": "dram__bytes_op_write.sum",
}


def wanted(compute_capability: tuple[int, int]) -> list[str]:
    """Names of the metrics to ask ncu for on a GPU of this compute capability."""
    names = [figure.metrics[0] for figure in _FIGURES] + list(_LOOKUPS)
    return [_RENAMED.get(name, name) for name in names] if compute_capability >= (12, 0) else names


def missing(found: Measures, compute_capability: str) -> dict[str, list[str]]:
    """For each figure that ``found`` lacks, the ncu metrics that would give it on a GPU of that capability, "9.0"."""
    major = compute_capability.partition(".")[0]
    renamed = _RENAMED if major.isdigit() and int(major) >= 12 else {}
    return {
        figure.name: [renamed.get(name, name) for name in (figure.metrics[0], *figure.weights)]
        for figure in _FIGURES
        if found.get(figure.name) is None
    }


def measures(kernels: Iterable[Kernel]) -> Measures:
    """Figures of one call from its launches: totals add up, rates are weighted means.

    A figure that any launch lacks is None, since a part of a sum would read as the whole.
    """
    launches = list(kernels)
    found: Measures = {"launches": len(launches)}
    for figure in _FIGURES:
        found[figure.name] = _combine(figure, launches)
    read, write = found["dram_read_bytes"], found["dram_write_bytes"]
    if found["dram_bytes"] is None and isinstance(read, float) and isinstance(write, float):
        found["dram_bytes"] = read + write
    return finite(found)


def _combine(figure: _Figure, launches: list[Kernel]) -> float | None:
    values = [value for kernel in launches if (value := _value(figure, kernel)) is not None]
    if not values or len(values) < len(launches):
        return None
    if not figure.weights:
        return sum(values)
    if len(values) == 1:
        return values[0]
    weights = [
        sum(kernel.metrics[name].value for name in figure.weights)
        for kernel in launches
        if all(name in kernel.metrics for name in figure.weights)
    ]
    if len(weights) < len(launches) or not sum(weights):
        return None
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _value(figure: _Figure, kernel: Kernel) -> float | None:
    metric = next((kernel.metrics[name] for name in figure.metrics if name in kernel.metrics), None)
    # Some pages leave the unit out.
    if metric is None or metric.unit not in (figure.unit, ""):
        return None
    if figure.unit == "%":
        return min(metric.value, 100.0) if 0 <= metric.value <= 100 + _RATE_SLACK_PERCENT else None
    return metric.value * figure.scale

"""When a call's launches ran: their gaps and what the host adds, as torch's profiler sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rls_bench.backends.interface import Call
from rls_bench.probes.interface import Measures

_CALLS = 5
WINDOW = "rls_bench call"


@dataclass(frozen=True)
class Span:
    """Something that ran from ``start_ns`` to ``end_ns``: a kernel on a GPU, an operator on a CPU."""

    name: str
    start_ns: int
    end_ns: int


def figures(launches: Iterable[Span], host: Span) -> Measures:
    """Figures of one call that took ``host`` from the host's view and made ``launches``."""
    spans = sorted(launches, key=lambda span: span.start_ns)
    busy_ns = gap_ns = 0
    reached_ns = spans[0].start_ns if spans else 0
    for span in spans:
        gap_ns += max(0, span.start_ns - reached_ns)
        # Streams overlap: only what lies past the latest end is new.
        busy_ns += max(0, span.end_ns - max(span.start_ns, reached_ns))
        reached_ns = max(reached_ns, span.end_ns)
    call_ns = host.end_ns - host.start_ns
    # A kernel that goes past torch's dispatcher is not seen at all: its time is no overhead.
    seen = bool(spans)
    return {
        "launches": len(spans),
        "busy_ns": busy_ns if seen else None,
        "gap_ns": gap_ns if seen else None,
        "host_overhead_ns": max(0, call_ns - busy_ns) if seen else None,
        "call_ns": call_ns,
    }


def watch(call: Call, device: str) -> Measures:
    """Medians over a few calls under torch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    call()
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(_CALLS):
            with record_function(WINDOW):
                call()
                if on_gpu:
                    torch.cuda.synchronize(device)
    host: list[Span] = []
    launches: list[Span] = []
    for event in profiler.profiler.kineto_results.events():
        span = Span(event.name(), event.start_ns(), event.end_ns())
        runs_on_gpu = event.device_type() == torch.autograd.DeviceType.CUDA
        if span.name == WINDOW:
            # A GPU timeline shows the same window again; the host's is the call.
            host += [] if runs_on_gpu else [span]
        elif runs_on_gpu == on_gpu and span.name != "[memory]":
            launches.append(span)
    # Kernels of two streams may cover each other; only operators call operators.
    outer = launches if on_gpu else _outermost(launches)
    calls = [figures(_within(outer, window), window) for window in host]
    return {name: _median([every[name] for every in calls]) for name in calls[0]}


def _within(spans: list[Span], window: Span) -> list[Span]:
    return [span for span in spans if window.start_ns <= span.start_ns and span.end_ns <= window.end_ns]


def _outermost(spans: list[Span]) -> list[Span]:
    """Spans that lie in no other, whose time has that of all they called."""
    outer: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)):
        if not outer or span.end_ns > outer[-1].end_ns:
            outer.append(span)
    return outer


def _median(values: list[float | str | None]) -> float | None:
    present = [value for value in values if isinstance(value, (int, float))]
    return median(present) if present else None

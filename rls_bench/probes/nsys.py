"""Launches, gaps and host overhead of a call, from Nsight Systems where it is installed, else from torch's profiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rls_bench.backends import registry
from rls_bench.backends.interface import YES, Call, Support
from rls_bench.errors import ProfileError
from rls_bench.probes import one_call, timeline
from rls_bench.probes.csv_cells import cells
from rls_bench.probes.interface import Measures
from rls_bench.probes.timeline import WINDOW, Span
from rls_bench.problems.problem import Problem

_TIMEOUT_SECONDS = 600


class NsysProbe:
    """On a GPU a launch is a kernel or a copy; on a CPU, an operator that the call hands to torch.

    ``gap_ns`` is the time between first launch and last in which none ran, ``host_overhead_ns`` the time of the whole
    call in which none ran: Python, dispatch and, on a GPU, the wait. A profiler's own cost per launch is in both.
    """

    name = "nsys"
    summary = "launches, gaps and host overhead a call (Nsight Systems, or torch's profiler)"

    def available(self) -> Support:
        return YES

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        if problem.device.startswith("cuda") and shutil.which("nsys"):
            return {**timeline.figures(*_nsys(backend, problem)), "source": "nsys"}
        return {**timeline.watch(call, problem.device), "source": "torch profiler"}


PROBE = NsysProbe()


def _nsys(backend: str, problem: Problem) -> tuple[list[Span], Span]:
    """The launches and the host's span of one call under nsys, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "call.nsys-rep"
        environment = {**os.environ, **registry.get(backend).environment()}
        capture = ["--trace=cuda", "--sample=none", "--capture-range=cudaProfilerApi", "--capture-range-end=stop"]
        _run(["nsys", "profile", *capture, f"--output={report}", *one_call.command(backend, problem)], environment)
        kernels = read(_run(["nsys", "stats", "--report=cuda_gpu_trace", "--format=csv", str(report)], environment))
        calls = read(_run(["nsys", "stats", "--report=cuda_api_trace", "--format=csv", str(report)], environment))
    # Starting and stopping the capture is no part of the call.
    calls = [span for span in calls if "Profiler" not in span.name]
    host = Span(WINDOW, min(span.start_ns for span in calls), max(span.end_ns for span in calls))
    return kernels, host


def _run(line: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            line, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ProfileError(f"{line[0]} {line[1]}: no end after {_TIMEOUT_SECONDS} s; try a smaller problem") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ProfileError(f"{line[0]} {line[1]} ended with {done.returncode}: {''.join(last) or 'it said nothing'}")
    return done.stdout


def read(text: str) -> list[Span]:
    """The rows of ``nsys stats --format csv`` for cuda_gpu_trace or cuda_api_trace; its chatter ahead is skipped.

    Raises ProfileError where there is no such table, or none of its rows can be read.
    """
    lines = text.replace("\ufeff", "").splitlines()
    start = next((i for i, line in enumerate(lines) if re.match(r'"?Start ?\((ns|nsec)\)', line)), None)
    if start is None:
        raise ProfileError("nsys: no trace in what it wrote; wanted `nsys stats --report cuda_gpu_trace --format csv`")
    header, *rows = map(cells, lines[start:])
    spans = []
    for row in (dict(zip(header, row, strict=False)) for row in rows):
        begin, duration = (_nanoseconds(row, column) for column in ("Start", "Duration"))
        if begin is not None and duration is not None:
            spans.append(Span(row.get("Name") or "", begin, begin + duration))
    if not spans:
        raise ProfileError("nsys: the trace is empty; did a kernel run on the GPU during the call?")
    return spans


def _nanoseconds(row: dict[str, str], column: str) -> int | None:
    """A whole number of nanoseconds, so that any sign within it sets thousands apart."""
    written = next((value for name, value in row.items() if name.startswith(column)), "")
    digits = re.sub(r"[.,'’ \u00a0\u202f]", "", written)
    return int(digits) if re.fullmatch("[0-9]+", digits) else None

"""What ``nsys stats`` writes, and the probe from command line to figures through a program that stands in for nsys."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rls_bench.errors import ProfileError
from rls_bench.probes import nsys
from rls_bench.probes.timeline import Span
from rls_bench.problems.problem import Problem

KERNELS = (
    "Generating SQLite file call.sqlite from call.nsys-rep\n"
    "Processing [call.sqlite] with [/opt/nsys/reports/cuda_gpu_trace.py]...\n"
    "Start (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,Device,Ctx,Strm,Name\n"
    '1000,300,11,8,4,1,Stub GPU (0),1,7,"attend<64>(float *, int)"\n'
    "1400,100,12,,,,Stub GPU (0),1,7,[CUDA memcpy Device-to-Device]\n"
)
CALLS = (
    "Start (ns),Duration (ns),Name,Result,CorrID,Pid,Tid\n"
    "500,50,cuProfilerStart,0,10,7,7\n"
    "800,40,cudaLaunchKernel,0,11,7,7\n"
    "900,700,cudaDeviceSynchronize,0,13,7,7\n"
)
FAKE_NSYS = """#!{python}
import os, sys
open({notes!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
if os.environ.get("FAKE_NSYS") == "crash" and sys.argv[1] == "profile":
    sys.exit("RuntimeError: the kernel is gone")
if sys.argv[1] == "stats":
    print({kernels!r} if "cuda_gpu_trace" in sys.argv[2] else {calls!r})
"""
PROBLEM = Problem(1, 2, 1, 7, 9, 16, 16, device="cuda")


@pytest.fixture
def fake_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nsys, first on PATH; the path is that of the notes it takes."""
    notes = tmp_path / "notes"
    program = tmp_path / "nsys"
    program.write_text(FAKE_NSYS.format(python=sys.executable, notes=str(notes), kernels=KERNELS, calls=CALLS))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return notes


def test_a_trace_is_read_past_the_chatter_ahead() -> None:
    assert nsys.read("\ufeff" + KERNELS) == [
        Span("attend<64>(float *, int)", 1000, 1300),
        Span("[CUDA memcpy Device-to-Device]", 1400, 1500),
    ]


def test_an_older_spelling_thousands_and_rows_cut_short() -> None:
    table = '"Start(nsec)","Duration(nsec)","Name"\n"1,000","20","k"\n"","","no time"\n"7"\n'
    assert nsys.read(table) == [Span("k", 1000, 1020)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no trace"),
        ("SKIPPED: call.sqlite does not contain CUDA trace data.", "no trace"),
        ("Start (ns),Duration (ns),Name\n", "did a kernel run"),
    ],
)
def test_a_report_without_a_trace_is_refused(text: str, told: str) -> None:
    with pytest.raises(ProfileError, match=told):
        nsys.read(text)


def test_a_call_is_traced_from_command_line_to_figures(fake_nsys: Path) -> None:
    figures = nsys.PROBE.measure(lambda: None, "eager", PROBLEM)
    # The host's part runs from the launch to the end of the wait; the capture's own start is left out.
    assert figures == {
        "launches": 2,
        "busy_ns": 400,
        "gap_ns": 100,
        "host_overhead_ns": 400,
        "call_ns": 800,
        "source": "nsys",
    }
    record, *stats = fake_nsys.read_text().splitlines()
    assert "--capture-range=cudaProfilerApi" in record
    assert "-m rls_bench.probes.one_call eager" in record
    assert [line.split()[1] for line in stats] == ["--report=cuda_gpu_trace", "--report=cuda_api_trace"]


def test_a_call_that_fails_under_nsys_is_told(fake_nsys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NSYS", "crash")
    with pytest.raises(ProfileError, match="nsys profile ended with 1: RuntimeError: the kernel is gone"):
        nsys.PROBE.measure(lambda: None, "eager", PROBLEM)


def test_on_a_cpu_torch_is_asked(fake_nsys: Path) -> None:
    figures = nsys.PROBE.measure(lambda: None, "eager", Problem(1, 1, 1, 1, 1, 16, 16))
    assert figures["source"] == "torch profiler"
    assert not fake_nsys.exists()

"""Running Nsight Compute: its command line and surroundings, through a program that stands in for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rls_bench.errors import ProbeUnavailable, ProfileError
from rls_bench.probes import ncu, ncu_metrics, nvml, one_call
from rls_bench.problems.problem import Problem

PROBLEM = Problem(1, 2, 1, 7, 9, 16, 16, device="cuda", inputs="random")

# Notes how it was called, then does what FAKE_NCU says.
FAKE_NCU = """#!{python}
import json, os, sys
log = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--log-file="))
with open({notes!r}, "w") as notes:
    json.dump({{"arguments": sys.argv[1:], "home": os.environ["HOME"], "triton": os.environ["TRITON_CACHE_DIR"],
               "cache": os.environ["XDG_CACHE_HOME"]}}, notes)
what = os.environ.get("FAKE_NCU", "table")
if what == "table":
    open(log, "w").write(
        "==PROF== Connected\\n"
        '"ID","Process ID","Kernel Name","CC","gpu__time_duration.sum","dram__bytes.sum"\\n'
        '"","","","","ns","byte"\\n'
        '"0","7","steered","9.0","1250","4096"\\n'
    )
elif what == "permission":
    open(log, "w").write("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\\n")
    sys.exit(1)
elif what == "crash":
    open(log, "w").write("==ERROR== The application returned an error code (1).\\n")
    sys.exit("RuntimeError: the kernel is gone")
"""


class FakeGpu:
    def compute_capability(self) -> tuple[int, int]:
        return (9, 0)


PROFILE = f"""
from rls_bench.probes import registry
from rls_bench.problems.problem import Problem
answer = registry.observe("ncu", None, "eager", {PROBLEM!r})
"""


@pytest.fixture
def fake_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ncu, first on PATH; the path is that of the notes it takes."""
    notes = tmp_path / "notes.json"
    program = tmp_path / "ncu"
    program.write_text(FAKE_NCU.format(python=sys.executable, notes=str(notes)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return notes


def test_a_call_is_profiled_from_command_line_to_figures(fake_ncu: Path, with_nvml: Callable[..., Any]) -> None:
    figures = with_nvml(PROFILE, cc="120")
    assert (figures["launches"], figures["duration_ns"], figures["dram_bytes"]) == (1, 1250, 4096)
    assert figures["l2_hit_rate_percent"] is None

    notes = json.loads(fake_ncu.read_text())
    arguments = notes["arguments"]
    assert {"--csv", "--page=raw", "--profile-from-start=off", "--clock-control=none"} < set(arguments)
    # The chip is a GeForce 50xx, where these two have other names.
    asked = next(word for word in arguments if word.startswith("--metrics=")).split("=", 1)[1].split(",")
    assert asked == ncu_metrics.wanted((12, 0))
    assert arguments[-5:] == one_call.command("eager", PROBLEM)
    # ncu litters its HOME; the compiled kernels and the tuned choices stay where they were.
    assert notes["home"] != os.path.expanduser("~")
    assert not Path(notes["home"]).exists()
    assert notes["triton"] == os.environ.get("TRITON_CACHE_DIR", os.path.expanduser("~/.triton/cache"))
    assert notes["cache"] == os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("permission", "NVreg_RestrictProfilingToAdminUsers=0"),
        ("crash", "the profiled call failed: RuntimeError: the kernel is gone"),
        ("nothing", "no table of metrics"),
    ],
)
def test_a_refusal_is_the_reason(
    fake_ncu: Path, with_nvml: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setenv("FAKE_NCU", what)
    assert told in with_nvml(PROFILE)["reason"]


def test_an_ncu_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("ncu", 600)

    monkeypatch.setattr(subprocess, "run", hang)
    monkeypatch.setattr(nvml, "opened", lambda device: contextlib.nullcontext(FakeGpu()))
    with pytest.raises(ProfileError, match="try a smaller problem"):
        ncu.profile("eager", PROBLEM)


def test_without_ncu_there_is_one_line_and_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    support = ncu.PROBE.available()
    assert not support
    assert "not on PATH" in support.reason
    assert "rls-bench profile --import FILE" in support.reason


def test_a_call_on_the_cpu_is_refused() -> None:
    with pytest.raises(ProbeUnavailable, match="wanted a problem whose device is cuda, got 'cpu'"):
        ncu.PROBE.measure(lambda: None, "eager", Problem(1, 1, 1, 1, 1, 16, 16))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    page = tmp_path / "page.csv"
    page.write_bytes('"ID","Kernel Name"\n"0","Prüfung"\n'.encode(encoding))
    told = {"cp1252": "windows-1252 \\(byte 0xfc in line 2\\)"}.get(encoding, encoding[:6].upper())
    with pytest.raises(ProfileError, match=rf"page\.csv: written in .*{told}.*wanted UTF-8"):
        ncu.read(page)

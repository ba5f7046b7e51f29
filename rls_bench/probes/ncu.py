"""Nsight Compute on one call: cache hit rates, bytes moved, pipe use, occupancy."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from rls_bench.backends import registry
from rls_bench.backends.interface import YES, Call, Support, no
from rls_bench.errors import DriverError, ProbeUnavailable, ProfileError
from rls_bench.machines import nvidia
from rls_bench.probes import ncu_csv, ncu_metrics, ncu_rep, nvml, one_call
from rls_bench.probes.interface import Measures
from rls_bench.probes.ncu_failure import explain
from rls_bench.problems.problem import Problem

_TIMEOUT_SECONDS = 600
# Byte-order marks; that of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_ELSEWHERE = "or read a report made elsewhere: rls-bench profile --import FILE"


class NcuProbe:
    """Runs the backend on the problem once more under ``ncu``, in a process of its own.

    ncu replays each launch with cold caches until every counter was read, so the duration is that of a cold call.
    """

    name = "ncu"
    summary = "L2 hit rate, L2 and DRAM bytes, tensor and MUFU pipe use, occupancy (Nsight Compute)"

    def available(self) -> Support:
        if shutil.which("ncu") is None:
            return no(f"Nsight Compute's ncu is not on PATH; install nsight-compute, {_ELSEWHERE}")
        try:
            with nvidia.gpu():
                return YES
        except DriverError as error:
            return no(f"{error}; {_ELSEWHERE}")

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """Figures of one call, added up over its kernels; raises ProfileError, with the mend, where ncu refuses."""
        return ncu_metrics.measures(profile(backend, problem))


PROBE = NcuProbe()


def profile(backend: str, problem: Problem) -> list[ncu_metrics.Kernel]:
    """The kernels of one call of ``backend`` on ``problem``, as ncu saw them.

    Raises ProbeUnavailable where the call would not run on a GPU, ProfileError where ncu gives no figures.
    """
    if not problem.device.startswith("cuda"):
        raise ProbeUnavailable(f"ncu: wanted a problem whose device is cuda, got {problem.device!r}")
    try:
        with nvml.opened(problem.device) as gpu:
            capability = gpu.compute_capability()
    except DriverError as error:
        raise ProbeUnavailable(str(error)) from error
    with tempfile.TemporaryDirectory() as home:
        table = Path(home) / "ncu.csv"
        line = command(backend, problem, capability or (9, 0), table)
        try:
            done = subprocess.run(
                line,
                env=environment(backend, home),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
            )
        except FileNotFoundError:
            raise ProbeUnavailable(PROBE.available().reason) from None
        except subprocess.TimeoutExpired:
            raise ProfileError(f"ncu: no end after {_TIMEOUT_SECONDS} s; try a smaller problem") from None
        written = table.read_text(encoding="utf-8-sig", errors="replace") if table.exists() else ""
    printed = written + done.stdout + done.stderr
    if done.returncode:
        raise explain(printed)
    return ncu_csv.read(written or done.stdout, point=".")


def command(backend: str, problem: Problem, compute_capability: tuple[int, int], table: Path) -> list[str]:
    """ncu's command line: one call, the metrics of this chip, clocks left alone, the table in a file of its own."""
    return [
        "ncu",
        "--csv",
        "--page=raw",
        "--print-units=base",
        f"--log-file={table}",
        "--target-processes=all",
        "--profile-from-start=off",
        "--clock-control=none",
        "--cache-control=all",
        f"--metrics={','.join(ncu_metrics.wanted(compute_capability))}",
        *one_call.command(backend, problem),
    ]


def environment(backend: str, home: str) -> dict[str, str]:
    """This process's variables and the backend's, with HOME elsewhere: ncu fills ``$HOME/Documents``.

    In the C locale ncu writes numbers with a decimal point and nothing between thousands.
    """
    ours = dict(os.environ)
    # Compiled kernels and tuned choices stay where they are, or the call would be compiled and tuned anew.
    ours.setdefault("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "cache"))
    ours.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return {**ours, **registry.get(backend).environment(), "HOME": home, "LC_ALL": "C"}


def read(path: Path) -> list[ncu_metrics.Kernel]:
    """The kernels of a report made elsewhere: .ncu-rep, or either page of ``ncu --csv``.

    Raises ProfileError where the file cannot be read as one, MissingPackage where .ncu-rep needs ncu-report.
    """
    try:
        with path.open("rb") as file:
            is_report = file.read(4) == b"NVR\0" or path.suffix == ".ncu-rep"
        return ncu_rep.read(path) if is_report else ncu_csv.read(_text(path.read_bytes()))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    except ProfileError as error:
        raise ProfileError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def _text(raw: bytes) -> str:
    """What a CSV page says. Raises ProfileError, with the encoding, where it is not UTF-8."""
    found = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    if found is None and raw[:2].count(0) == 1:
        found = "UTF-16"
    if found is None:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
            found = f"an 8-bit encoding such as windows-1252 (byte 0x{byte:02x} in line {line})"
    raise ProfileError(
        f"written in {found}; wanted UTF-8: convert it (iconv -t UTF-8; in PowerShell: Get-Content … | Set-Content "
        "-Encoding utf8 …)"
    )

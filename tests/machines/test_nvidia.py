"""Which GPU the driver is asked about: the one that CUDA computes on, through the stub library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rls_bench.errors import DriverError
from rls_bench.machines.visible import selected

FIRST, SECOND = "GPU-5b1bf1a5-0000-4000-8000-00000000c0de", "GPU-5b1bf1a5-0000-4000-8000-00000000c0dd"
MIG = "MIG-7e57ab1e-0000-4000-8000-00000000c0dd"
OPENED = """
import os
os.environ |= {variables!r}
from rls_bench.errors import DriverError
from rls_bench.machines import nvidia
try:
    with nvidia.gpu({device!r}) as gpu:
        answer = [gpu.uuid(), gpu.sm_clock_mhz(), gpu.shared]
except DriverError as error:
    answer = str(error)
"""


@pytest.fixture
def opened(with_nvml: Callable[..., Any]) -> Callable[..., Any]:
    """UUID, clock and share of the GPU that is opened as ``device``, or the error; of two GPUs, 210 and 1950 MHz."""

    def run(device: int | str = 0, visible: str | None = None, **knobs: str) -> Any:
        variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        code = OPENED.format(variables=variables, device=device)
        return with_nvml(code, **{"count": "2", "sm_mhz": "210,1950", **knobs})

    return run


@pytest.mark.parametrize("visible", ["1", "1,0", SECOND, "GPU-5b1bf1a5-0000-4000-8000-00000000c0dd,0", " 1 "])
def test_the_gpu_that_cuda_shows_is_the_one_that_is_asked(opened: Callable[..., Any], visible: str) -> None:
    assert opened(visible=visible) == [SECOND, 1950, ""]


@pytest.mark.parametrize("device", [SECOND, SECOND.removeprefix("GPU-"), 1])
def test_a_gpu_by_uuid_or_by_cudas_number(opened: Callable[..., Any], device: int | str) -> None:
    assert opened(device) == [SECOND, 1950, ""]


def test_the_start_of_a_uuid_is_enough_where_it_is_only_one(opened: Callable[..., Any]) -> None:
    assert opened("GPU-5b", count="1") == [FIRST, 210, ""]
    assert "GPU GPU-5b: more than one of those that the driver shows here" in opened("GPU-5b")


@pytest.mark.parametrize("device", [MIG, MIG.removeprefix("MIG-"), f"MIG-{SECOND}/1/0"])
def test_of_a_mig_instance_the_whole_gpu_is_asked_and_that_is_said(opened: Callable[..., Any], device: str) -> None:
    uuid, clock, shared = opened(device, mig="1")
    assert (uuid, clock) == (SECOND, 1950)
    assert "MIG" in shared
    assert "whole GPU" in shared


def test_a_gpu_that_nvml_does_not_show_is_named_with_those_that_it_does(opened: Callable[..., Any]) -> None:
    said = opened("GPU-00000000-0000-0000-0000-000000000000")
    assert "none of those that the driver shows here" in said
    assert FIRST in said
    assert "may be hidden from NVML" in said


def test_a_vgpu_says_that_its_host_alone_knows(opened: Callable[..., Any]) -> None:
    assert opened(virtualization="2")[2].startswith("a vGPU")


def test_gpus_of_several_models_are_counted_by_cuda_alone(opened: Callable[..., Any]) -> None:
    assert "set CUDA_DEVICE_ORDER=PCI_BUS_ID" in opened(visible="1", mixed="1")
    assert opened(SECOND, mixed="1")[0] == SECOND


@pytest.mark.parametrize(("code", "least"), [("0", 0.75 * 1800), ("26", 0.75 * 1980), ("3", 0.75 * 1980)])
def test_application_clocks_that_a_new_driver_calls_deprecated_are_lacking(
    with_nvml: Callable[..., Any], code: str, least: float
) -> None:
    reading = """
from rls_bench.machines import nvidia
from rls_bench.runner import throttle
with nvidia.gpu() as gpu:
    answer = throttle.watch(gpu).least_mhz
"""
    fail = f"nvmlDeviceGetApplicationsClock={code},nvmlDeviceGetDefaultApplicationsClock={code}"
    assert with_nvml(reading, fail=fail, reasons="2" if code != "0" else "0") == least


@pytest.mark.parametrize(
    ("listed", "index", "found"),
    [
        (None, 1, 1),
        ("1", 0, 1),
        ("1,0", 1, 0),
        ("GPU-8932f937", 0, "GPU-8932f937"),
        ("MIG-GPU-8932f937/1/0", 0, "MIG-GPU-8932f937/1/0"),
    ],
)
def test_cudas_rules(listed: str | None, index: int, found: int | str) -> None:
    environment = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert selected(index, environment, ["H100", "H100"]) == found


@pytest.mark.parametrize("listed", ["", "-1", "NoDevFiles", "2", "-1,0", "0,0", "one"])
def test_where_cuda_sees_nothing_there_is_no_gpu(listed: str) -> None:
    with pytest.raises(DriverError, match="CUDA sees 0 GPUs"):
        selected(0, {"CUDA_VISIBLE_DEVICES": listed}, ["H100", "H100"])


def test_what_comes_behind_an_entry_that_is_none_is_not_seen() -> None:
    with pytest.raises(DriverError, match="CUDA sees 1 GPUs"):
        selected(1, {"CUDA_VISIBLE_DEVICES": "1,7,0"}, ["H100", "H100"])


def test_the_clock_watch_follows_the_gpu_in_use(nvml_library: Path) -> None:
    """On GPU 0, which idles, every sample would be rejected; a busy one would hide throttling."""
    code = """
import time
from rls_bench.runner.throttle import ClockWatch
answers = []
for gpu in ({second!r}, "", {first!r}):
    watch = ClockWatch(gpu)
    while not watch._heard and watch._process.poll() is None:
        time.sleep(0.02)
        watch._drain()
    answers.append(watch.held_down(0, time.perf_counter_ns()))
    watch.stop()
print(answers)
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library), "CUDA_VISIBLE_DEVICES": "1"}
    environment |= {"STUB_COUNT": "2", "STUB_SM_MHZ": "210,1950"}
    line = [sys.executable, "-c", code.format(first=FIRST, second=SECOND)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    slow = "the SM clock fell to 210 MHz; wanted at least 1350"
    assert done.stdout.strip() == str(["", "", slow])

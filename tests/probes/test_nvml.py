"""NVML through the real nvidia-ml-py and a stub library: figures, and every way in which the driver can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rls_bench.backends.interface import YES, no
from rls_bench.errors import ProbeUnavailable
from rls_bench.probes import nvml, registry
from rls_bench.problems.problem import Problem

CPU_PROBLEM = Problem(1, 1, 1, 1, 1, 16, 16, device="cpu")
WATCH = """
import time
from rls_bench.machines import nvidia
from rls_bench.probes import nvml
with nvidia.gpu("5b1bf1a5-0000-4000-8000-00000000c0de") as gpu:
    answer = nvml.watch(gpu, lambda: time.sleep(0.005), lambda: None{seconds})
"""
# Long enough for a few batches; the energy test alone takes the full second.
BRIEFLY = WATCH.format(seconds=", 0.12")
AVAILABLE = """
from rls_bench.probes import nvml
support = nvml.PROBE.available()
answer = [bool(support), support.reason]
"""


def test_a_second_of_calls_gives_joules_and_what_the_gpu_did(with_nvml: Callable[..., Any]) -> None:
    measures = with_nvml(WATCH.format(seconds=""), watts="300", reasons="0x24")
    assert measures["window_seconds"] >= 1
    # 300 W for the time of a call, within the 10 ms steps of the counter.
    expected = 300 * measures["window_seconds"] / measures["calls"]
    assert measures["joules_per_call"] == pytest.approx(expected, rel=0.03)
    assert (measures["gpu_name"], measures["driver"]) == ("Stub GPU", "570.00-stub")
    assert (measures["sm_clock_mhz"], measures["max_sm_clock_mhz"], measures["memory_clock_mhz"]) == (1700, 1980, 2600)
    assert (measures["power_watts"], measures["power_limit_watts"], measures["temperature_celsius"]) == (300, 700, 61)
    assert measures["event_reasons"] == "power cap, software thermal"
    assert "reason" not in measures


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("nvmlDeviceGetPowerUsage=3", "power_watts"),
        ("nvmlDeviceGetTotalEnergyConsumption=3", "joules_per_call"),
        ("nvmlDeviceGetTemperature=3", "temperature_celsius"),
        ("nvmlDeviceGetCurrentClocksEventReasons=13,nvmlDeviceGetCurrentClocksThrottleReasons=13", "event_reasons"),
        ("nvmlSystemGetDriverVersion=3", "driver"),
    ],
)
def test_what_is_not_supported_is_missing_and_the_rest_stays(
    with_nvml: Callable[..., Any], fault: str, name: str
) -> None:
    measures = with_nvml(BRIEFLY, fail=fault)
    assert [key for key, value in measures.items() if value is None] == [name]
    assert "reason" not in measures


def test_an_old_driver_knows_the_event_reasons_by_their_old_name(with_nvml: Callable[..., Any]) -> None:
    measures = with_nvml(BRIEFLY, fail="nvmlDeviceGetCurrentClocksEventReasons=13", reasons="0x1000040")
    assert measures["event_reasons"] == "hardware thermal, unknown 0x1000000"


def test_a_call_that_fails_midway_loses_its_own_figure_alone(with_nvml: Callable[..., Any]) -> None:
    measures = with_nvml(BRIEFLY, fail="nvmlDeviceGetTotalEnergyConsumption=999", fail_after="1")
    assert measures["joules_per_call"] is None
    assert measures["power_watts"] == 300
    assert measures["reason"] == "nvmlDeviceGetTotalEnergyConsumption: Unknown Error"


def test_a_gpu_lost_midway_keeps_what_was_seen_before(with_nvml: Callable[..., Any]) -> None:
    measures = with_nvml(BRIEFLY, fail="nvmlDeviceGetClockInfo=15,nvmlDeviceGetPowerUsage=15", fail_after="1")
    assert measures["sm_clock_mhz"] == 1700
    assert measures["power_watts"] == 300
    assert "GPU is lost; reset the GPU or reboot" in measures["reason"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nvmlInitWithFlags=9", "NVML: Driver Not Loaded; load the kernel module"),
        ("nvmlInitWithFlags=18", "reload the kernel module or reboot"),
        ("nvmlDeviceGetHandleByIndex_v2=15", "GPU 0: GPU is lost; reset the GPU or reboot the machine"),
        ("nvmlDeviceGetHandleByIndex_v2=4", "GPU 0: Insufficient Permissions; run as a user who may open"),
    ],
)
def test_a_driver_that_refuses_is_told_with_the_mend(with_nvml: Callable[..., Any], fault: str, reason: str) -> None:
    available, said = with_nvml(AVAILABLE, fail=fault)
    assert not available
    assert reason in said


def test_the_stub_is_seen_as_available(with_nvml: Callable[..., Any]) -> None:
    assert with_nvml(AVAILABLE) == [True, ""]


def test_without_the_library_there_is_one_line(tmp_path: Path) -> None:
    # A file that is no library stands before any real one, so that this holds on a GPU host too.
    (tmp_path / "libnvidia-ml.so.1").write_text("")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", AVAILABLE + "print(answer)"], env=environment, capture_output=True, text=True, check=True
    )
    assert "no NVIDIA driver here: libnvidia-ml.so.1 was not found" in done.stdout


def test_throttling_is_told_from_idling(with_nvml: Callable[..., Any]) -> None:
    code = "from rls_bench.machines import nvidia\nwith nvidia.gpu() as gpu:\n    answer = gpu.is_throttled()"
    assert with_nvml(code, reasons="0x101") is False
    assert with_nvml(code, reasons="0x9") is True
    assert (
        with_nvml(code, fail="nvmlDeviceGetCurrentClocksEventReasons=3,nvmlDeviceGetCurrentClocksThrottleReasons=3")
        is None
    )


def test_a_call_on_the_cpu_is_refused() -> None:
    with pytest.raises(ProbeUnavailable, match="runs on the CPU"):
        nvml.PROBE.measure(lambda: None, "eager", CPU_PROBLEM)


def test_observing_turns_a_refusal_into_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.NvmlProbe, "available", lambda self: no("gone"))
    assert registry.observe("nvml", lambda: None, "eager", CPU_PROBLEM) == {"reason": "gone"}
    monkeypatch.setattr(nvml.NvmlProbe, "available", lambda self: YES)
    assert "runs on the CPU" in str(registry.observe("nvml", lambda: None, "eager", CPU_PROBLEM)["reason"])

"""Warnings about a CPU that could not give its best, and silence about one that could."""

from __future__ import annotations

import os
from pathlib import Path

from rls_bench.timing import steadiness
from rls_bench.timing.steadiness import CpuTimes

BEFORE = CpuTimes(total=100.0, idle=50.0, stolen=0.0, own=10.0)


def test_a_quiet_machine_gets_no_warning() -> None:
    assert steadiness.complaints(BEFORE, CpuTimes(120.0, 60.0, 0.0, 20.0), 0.98) == []


def test_stolen_time_is_told() -> None:
    (warning,) = steadiness.complaints(BEFORE, CpuTimes(120.0, 58.0, 2.0, 20.0))
    assert "hypervisor took 10%" in warning


def test_other_processes_are_told() -> None:
    (warning,) = steadiness.complaints(BEFORE, CpuTimes(120.0, 50.0, 0.0, 20.0))
    assert "other processes used 50%" in warning


def test_a_clock_held_down_is_told_with_the_mend() -> None:
    (warning,) = steadiness.complaints(None, None, 0.5)
    assert "cpupower" in warning


def test_the_times_are_read_off_this_machine(tmp_path: Path) -> None:
    times = steadiness.read([os.getpid()])
    assert times is None or times.total >= times.idle + times.stolen
    assert steadiness.read([1], tmp_path) is None


def test_the_clock_share_is_the_slowest_cpus(tmp_path: Path) -> None:
    assert steadiness.clock_share(tmp_path) is None
    for cpu, now in (("cpu0", "3000000"), ("cpu1", "1500000")):
        folder = tmp_path / cpu / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(now)
        (folder / "cpuinfo_max_freq").write_text("3000000")
    assert steadiness.clock_share(tmp_path) == 0.5

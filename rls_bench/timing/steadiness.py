"""Whether a CPU could give its best while it was timed: stolen time, other work, a clock held down."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Shares of the machine's CPU time above which figures are no longer to be trusted.
MOST_STOLEN = 0.01
MOST_FOREIGN = 0.05
# A clock below this share of its highest is held down by a governor or by heat.
LEAST_CLOCK = 0.75


@dataclass(frozen=True)
class CpuTimes:
    """Time since boot, seconds over all CPUs: all of it, idle, taken by the hypervisor, and used by some processes."""

    total: float
    idle: float
    stolen: float
    own: float


def read(pids: list[int], proc: Path = Path("/proc")) -> CpuTimes | None:
    """The times now, with ``own`` that of ``pids``; None where the system doesn't tell."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        fields = [int(word) for word in (proc / "stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    # user nice system idle iowait irq softirq steal (proc(5)); guest time is in user already.
    own = sum(_used(proc / str(pid) / "stat") for pid in pids)
    return CpuTimes(sum(fields[:8]) / tick, (fields[3] + fields[4]) / tick, fields[7] / tick, own / tick)


def complaints(before: CpuTimes | None, after: CpuTimes | None, clock_share: float | None = None) -> list[str]:
    """What was wrong between two readings, each in one line with what to do about it."""
    found = []
    if before is not None and after is not None and (total := after.total - before.total) > 0:
        stolen = (after.stolen - before.stolen) / total
        busy = 1 - (after.idle - before.idle) / total - stolen
        foreign = busy - (after.own - before.own) / total
        if stolen > MOST_STOLEN:
            found.append(f"the hypervisor took {stolen:.0%} of the CPU time: use a machine of your own")
        if foreign > MOST_FOREIGN:
            found.append(f"other processes used {foreign:.0%} of the CPU time: stop them, or trust no small difference")
    if clock_share is not None and clock_share < LEAST_CLOCK:
        found.append(
            f"the CPU clock stood at {clock_share:.0%} of its highest: set the performance governor "
            "(cpupower frequency-set -g performance), or let the machine cool down"
        )
    return found


def clock_share(sysfs: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """The lowest CPU's clock as a share of its highest; None where the kernel doesn't tell, as in most guests."""
    shares = []
    for folder in sysfs.glob("cpu[0-9]*/cpufreq"):
        try:
            now, highest = (int((folder / name).read_text()) for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
        except (OSError, ValueError):
            continue
        shares.append(now / highest)
    return min(shares, default=None)


def _used(stat: Path) -> int:
    """Clock ticks that one process has used, its reaped children included; 0 for one that is gone."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])

"""What recording adds to a call, on one thread: ``python -m benchmarks.recording`` prints it against its bars.

A short call, with recording and without in turns, a burst of each, by the thread's CPU time; the figure is the median
of the differences within turns.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from .host_cost import prepared

# Microseconds that recording may add to a call.
BARS_US = {"plan cpu": 1.0, "cpu": 2.0, "plan sdpa-cpu": 1.0, "sdpa-cpu": 2.0}


def added_us(way, rounds=300, burst=100):
    """Microseconds that recording adds to a call of ``way``, a figure a turn."""
    import torch

    import rls_bench
    from rls_bench.traffic import trace

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    call = prepared("short", way)

    def taken_us():
        # What a recorder does once for a new kind of call is no call's cost.
        call()
        start_ns = time.thread_time_ns()
        for _ in range(burst):
            call()
        return (time.thread_time_ns() - start_ns) / burst / 1e3

    try:
        taken_us()
        found = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.jsonl"
            for turn in range(rounds):
                plain = taken_us() if turn % 2 else None
                with rls_bench.record_workload(path):
                    recorded = taken_us()
                found.append(recorded - (taken_us() if plain is None else plain))
            counted = sum(trace.read(path).calls.values())
        if counted != rounds * (burst + 1):
            raise RuntimeError(f"wanted {rounds * (burst + 1)} calls recorded; got {counted}")
    finally:
        torch.set_num_threads(threads)
    return found


def main():
    """Print every way's figure; 1 where a bar is missed."""
    missed = 0
    for way, bar_us in BARS_US.items():
        added = sorted(added_us(way))
        middle = median(added)
        quarters = added[len(added) // 4], added[-len(added) // 4]
        missed += middle > bar_us
        verdict = "met" if middle <= bar_us else "MISSED"
        print(f"{way:16}{middle:6.2f} µs ({quarters[0]:.2f} to {quarters[1]:.2f})  bar {bar_us:g} µs  {verdict}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())

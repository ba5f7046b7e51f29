"""What a node runs in place of the runner where a test is not about measuring: records drawn for the plan it is given.

Variables of the node say how: STAND_IN_SECONDS to take, STAND_IN_SCALE of its latencies, STAND_IN_HOLD, a file that it
waits for to go.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from dataclasses import replace

import drawn_records
import msgspec
import numpy as np

from rls_bench.runner import Plan


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0.2")))
    while os.path.exists(os.environ.get("STAND_IN_HOLD", "")):
        time.sleep(0.05)
    (work,) = plan.problems
    scale = float(os.environ.get("STAND_IN_SCALE", "1"))
    rng = np.random.default_rng([zlib.crc32(work.key.encode()), os.getpid()])
    run = f"run-{os.getpid()}-{time.time_ns()}"
    for backend in plan.backends:
        samples = drawn_records.launches(rng, 1e6 * work.key_length * scale)
        entry = drawn_records.record(backend, work, samples, run=run)
        sys.stdout.buffer.write(msgspec.json.encode(replace(entry, created="2026-01-01T00:00:00Z")) + b"\n")


if __name__ == "__main__":
    main()

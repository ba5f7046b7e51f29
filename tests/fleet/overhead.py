"""What a fleet adds to its cells' own time: ``PYTHONPATH=tests python tests/fleet/overhead.py``, three times.

Three nodes of this machine, eight cells each on its kind, a stand-in of two seconds for the runner. From the first
task's beginning to the last one's end, over one row of eight run by hand, before and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import msgspec
import on_ray
from ray import cluster_utils

from rls_bench.fleet import ledger
from rls_bench.runner import Plan

KINDS = ("one", "two", "three")
STAND_IN = {"STAND_IN_SECONDS": "2"}
STORE_BYTES = 80 << 20


def row_seconds() -> float:
    """Eight cells, one after the other, without Ray."""
    began = time.monotonic()
    for problem in on_ray.PROBLEMS:
        plan = msgspec.json.encode(Plan([problem], ["eager"]))
        subprocess.run(on_ray.COMMAND, input=plan, env={**os.environ, **STAND_IN}, stdout=subprocess.PIPE, check=True)
    return time.monotonic() - began


def fleet_seconds(address: str) -> float:
    """All three rows at once, from the first beginning that the ledger has to the last end."""
    with tempfile.TemporaryDirectory() as folder:
        on_ray.run(address, Path(folder), KINDS)
        moments = [datetime.fromisoformat(line.time) for line in ledger.read(Path(folder) / "ledger.jsonl")]
    return (max(moments) - min(moments)).total_seconds()


def main() -> None:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    path = str(Path(__file__).parents[1])
    for kind in KINDS:
        cluster.add_node(
            num_cpus=1,
            resources={f"gpu:{kind}": 1},
            labels={"machine": kind},
            env_vars={"PYTHONPATH": path, **STAND_IN},
            object_store_memory=STORE_BYTES,
            wait=False,
        )
    cluster.wait_for_nodes(timeout=180)
    for _ in range(3):
        before, together, after = row_seconds(), fleet_seconds(cluster.address), row_seconds()
        print(
            f"a row {before:.1f} and {after:.1f} s, three at once {together:.1f} s: {overhead(before, together, after)}"
        )
    cluster.shutdown()


def overhead(before: float, together: float, after: float) -> str:
    return f"{2 * together / (before + after) - 1:+.1%}"


if __name__ == "__main__":
    sys.exit(main())

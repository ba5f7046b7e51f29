"""A fleet run of stand-ins as a program, ``on_ray.py ADDRESS FOLDER KINDS PER_KIND``; prints its conclusion as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import drawn_records

from rls_bench.fleet import cluster, conclusion, driver
from rls_bench.fleet.folder import Folder
from rls_bench.fleet.ledger import Ledger
from rls_bench.runner import Plan

COMMAND = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
PROBLEMS = [drawn_records.problem(64 * n) for n in range(1, 9)]


def run(address: str, path: Path, kinds: tuple[str, ...], per_kind: int = 1, **changes: object) -> dict[str, object]:
    """What the run concluded."""
    plan = Plan(PROBLEMS[:1], ["eager"])
    order = driver.Order(kinds, lambda hello: PROBLEMS, ("eager",), plan, per_kind, **changes)  # type: ignore[arg-type]
    folder, ledger = Folder(path), Ledger(path / "ledger.jsonl")
    try:
        with cluster.connected(address, command=COMMAND) as fleet:
            outcome = driver.run(order, fleet, folder, ledger)
    finally:
        ledger.close()
    found = conclusion.conclude(folder, outcome.hellos)
    return {
        "troubles": outcome.troubles,
        "missing": outcome.missing,
        "differences": found.differences,
        "suspects": {one.machine: one.reason for odd in found.suspects.values() for one in odd},
        "records": {kind: len(records) for kind, records in found.records.items()},
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3].split(",")), int(sys.argv[4]))))

"""A million records into a store and out again: ``python -m benchmarks.million FOLDER`` prints seconds and memory.

Two machines' worth of cells (40 problems by 12 backends) at 2,084 commits, three launches of ten samples each; 1.8 GB
of lines, written to ``FOLDER/results.jsonl`` first. Import and load are processes of their own.
"""

import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

COUNT = 1_000_000
COMMIT, RUN, MONTH = b"c" * 40, b"run-0000", b"2026-01-"
LOAD = "import sys; from pathlib import Path; from rls_bench.compare.sources import load; load(Path(sys.argv[1]))"


def lines():
    """The line of each cell, to be dated and given its commit."""
    from rls_bench.machines import host
    from rls_bench.problems.problem import Problem
    from rls_bench.records.record import Agreement, Record

    generator = np.random.default_rng(0)
    machine, agreement = host.current(), Agreement(error=2e-3, floor=2e-3, ratio=1.0, passed=True)
    for length in range(64, 64 * 41, 64):
        problem = Problem(1, 8, 8, length, length, 64, 64)
        for backend in range(12):
            samples = length * 1e4 * (1 + backend / 10) * np.exp(0.01 * generator.standard_normal((3, 10)))
            record = Record(
                run=RUN.decode(),
                created=MONTH.decode() + "01T00:00:00Z",
                machine=machine,
                problem=problem,
                backend=f"backend-{backend}",
                label=f"backend-{backend}",
                status="ok",
                commit=COMMIT.decode(),
                agreement=agreement,
                samples_ns={"warm": samples.tolist()},
            )
            yield msgspec.json.encode(record) + b"\n"


def write(path):
    """As many lines as are wanted, commit after commit."""
    cells, left, number = list(lines()), COUNT, 0
    with path.open("wb") as file:
        while left:
            commit = hashlib.sha1(str(number).encode()).hexdigest().encode()
            of_commit = {COMMIT: commit, RUN: b"run-%04d" % number, MONTH: b"2026-%02d-" % (1 + number % 10)}
            for line in cells[:left]:
                for old, new in of_commit.items():
                    line = line.replace(old, new)
                file.write(line)
            left -= min(left, len(cells))
            number += 1


def told(what, *command):
    """Run a process, and print what it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what}: {seconds:.1f} s, {cpu:.1f} s of CPU time, at most {after.ru_maxrss / 1024:.0f} MiB so far")


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    results, store = folder / "results.jsonl", folder / "store"
    write(results)
    told("import", sys.executable, "-m", "rls_bench", "store", "import", str(results), "--store", str(store))
    told("load", sys.executable, "-c", LOAD, str(store))


if __name__ == "__main__":
    main()

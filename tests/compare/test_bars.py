"""What compare promises, on drawn runs: identical sources raise no alarm, and 5 % on one cell of forty is found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_records import launches, problem, record, run, write

from rls_bench.compare import compare, load
from rls_bench.compare.ratios import ratios
from rls_bench.records.record import Question

RUNS = 100
CELLS = 40


def test_whole_runs_of_identical_sources_and_a_planted_slowdown(tmp_path: Path) -> None:
    alarms = found = elsewhere = 0
    for index in range(RUNS):
        base = load(write(tmp_path / "base.jsonl", run(2 * index + 1)))
        same = load(write(tmp_path / "same.jsonl", run(2 * index + 2)))
        alarms += "SLOWER" in compare(base, same).counts
        planted = index % CELLS
        slow = load(write(tmp_path / "slow.jsonl", run(2 * index + 2, slower={planted: 1.05})))
        cell = (problem(64 * (1 + planted // 4)).title, f"backend-{planted % 4}")
        slower = [(row.problem, row.backend) for row in compare(base, slow).rows if row.verdict == "SLOWER"]
        found += cell in slower
        elsewhere += len(set(slower) - {cell})
    assert alarms <= 2
    assert found >= 95
    assert elsewhere <= 0.02 * RUNS * (CELLS - 1)


@pytest.mark.parametrize("between", [0.005, 0.02, 0.05, 0.3])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_false_alarms_stay_rare_however_noisy_the_machine(between: float, tails: str) -> None:
    """Significance alone, without the threshold's help: at most 2 % of whole runs, plus three deviations of luck."""
    rng = np.random.default_rng(7)
    alarms, runs = 0, 300
    for _ in range(runs):
        spread = between * np.exp(0.4 * rng.standard_normal((CELLS, 1)))
        noise = rng.standard_normal((CELLS, 6)) if tails == "normal" else rng.standard_t(3, (CELLS, 6))
        drawn = spread * noise
        found = ratios(drawn[:, :3].tolist(), drawn[:, 3:].tolist(), ["warm"] * CELLS)
        alarms += bool((found.significant & (found.new > found.base)).any())
    assert alarms <= runs * 0.02 + 3 * (runs * 0.02) ** 0.5


def test_a_machine_of_two_speeds_raises_no_alarm_where_three_launches_met_the_same_speed() -> None:
    rng = np.random.default_rng(7)
    alarms, runs = 0, 300
    for _ in range(runs):
        drawn = 0.05 * rng.standard_normal((CELLS, 6)) + np.log(1.8) * (rng.random((CELLS, 6)) < 0.27)
        found = ratios(drawn[:, :3].tolist(), drawn[:, 3:].tolist(), ["warm"] * CELLS)
        alarms += bool((found.significant & (found.new > found.base)).any())
    assert alarms <= runs * 0.02 + 3 * (runs * 0.02) ** 0.5


@pytest.mark.quiet
@pytest.mark.timeout(900)
def test_two_files_of_a_hundred_thousand_records(tmp_path: Path) -> None:
    """Two questions a record; written in parts, since one of them is half a gigabyte."""
    paths = tmp_path / "base.jsonl", tmp_path / "new.jsonl"
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        with path.open("wb") as whole:
            for part in range(100):
                entries = [
                    record(f"backend-{index % 8}", problem(64, seed=1000 * part + index // 8), both(rng))
                    for index in range(1000)
                ]
                whole.write(write(tmp_path / "part.jsonl", entries).read_bytes())
    began = time.monotonic()
    command = [Path(sys.executable).with_name("rls-bench"), "compare", *map(str, paths), "--format", "json"]
    done = subprocess.run(command, capture_output=True, check=False)
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s, exit code {done.returncode}")
    assert done.returncode in (0, 1, 3), done.stderr.decode()
    assert len(json.loads(done.stdout)["rows"]) == 200_000
    assert seconds <= 15


def both(rng: np.random.Generator) -> dict[Question, list[list[float]]]:
    return {"warm": launches(rng, 1e6), "cold": launches(rng, 1e6)}

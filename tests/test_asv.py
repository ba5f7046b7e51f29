"""asv runs for real: a scratch clone, the commands of the README, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_asv_saves_latency_and_error_and_skips_what_needs_a_gpu(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    asv = str(Path(sys.executable).with_name("asv"))
    # Of the clone, not of the checkout that this interpreter has installed; asv drops a plain PYTHONPATH.
    sources = os.pathsep.join(str(clone / folder) for folder in (".", "kernels", "baselines"))
    environment = {**os.environ, "HOME": str(tmp_path), "ASV_PYTHONPATH": sources, "PYTHONPATH": sources}
    environment["RLS_BENCH_SUITES"] = "prefill"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([asv, *arguments], cwd=clone, env=environment, capture_output=True, text=True)

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
    assert run("check").returncode == 0
    assert run("machine", "--machine", "laptop", "--yes").returncode == 0
    done = run("run", "--bench", "^prefill", "--set-commit-hash", commit.stdout.strip(), "--record-samples")
    assert done.returncode == 0, done.stdout + done.stderr

    (results,) = (clone / "results" / "asv" / "laptop").glob(f"{commit.stdout[:8]}*.json")
    saved = json.loads(results.read_text())
    columns = saved["result_columns"]
    latency = dict(zip(columns, saved["results"]["prefill.Prefill.track_latency"], strict=False))
    error = dict(zip(columns, saved["results"]["prefill.Prefill.track_error"], strict=False))
    backends, lengths = latency["params"]
    assert [len(samples or []) > 0 for samples in latency["samples"]].count(True) >= 2 * 5
    cells = [(backend.strip("'"), length) for backend in backends for length in lengths]
    by_cell = dict(zip(cells, zip(latency["result"], error["result"], strict=True), strict=True))
    assert by_cell["eager", "1024"][0] > 0.0
    assert 0.0 < by_cell["eager", "1024"][1] < 1e-5
    # A skipped cell is n/a, which asv stores as NaN; a failed one would be null.
    assert by_cell["sdpa-cudnn", "1024"][0] != by_cell["sdpa-cudnn", "1024"][0]

"""The report's bar, taken anew by ``make test-quiet``."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_records import launches, problem, record, write

RECORDS = 10_000
BACKENDS = 8


@pytest.mark.quiet
def test_a_report_of_ten_thousand_records(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entries = []
    for index in range(RECORDS):
        shape = problem(
            64 * (1 + index // BACKENDS % 64), head_dim=(64, 128)[index // BACKENDS % 2], seed=index // 1024
        )
        centre_ns = 1e5 * shape.query_length * (1 + index % BACKENDS)
        samples = {question: launches(rng, centre_ns) for question in ("warm", "cold")}
        entries.append(record(f"backend-{index % BACKENDS}", shape, samples))  # type: ignore[arg-type]
    results = write(tmp_path / "results.jsonl", entries)
    page = tmp_path / "report.html"
    began = time.monotonic()
    subprocess.run([Path(sys.executable).with_name("rls-bench"), "report", results, "--html", page], check=True)
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
    assert seconds <= 20
    assert page.stat().st_size <= 8e6

"""Runs tests/kernels/triton in a process whose Triton interprets kernels: other tests compile them for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_interpreted(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/kernels/triton", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_kernels_agree_in_the_interpreter() -> None:
    done = run_interpreted("-m", "not slow")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_matrix_agrees_in_the_interpreter() -> None:
    done = run_interpreted("-m", "slow", "--timeout", "900")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]

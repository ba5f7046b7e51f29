"""The kernels of AVX-512, AVX-512-BF16 and AMX, with those instructions emulated in AVX2, on any machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = ("test_sizes.py", "test_hidden.py", "test_agreement.py", "test_gradients.py")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_instruction_set_agrees_emulated() -> None:
    environment = {**os.environ, "RLS_CPU_BUILD": "emulated", "OMP_NUM_THREADS": "1"}
    environment.pop("RLS_CPU_ISA", None)
    files = [str(Path(__file__).with_name(name)) for name in TESTS]
    options = ["-p", "no:cacheprovider", "-n", "2", "-k", "avx512 or amx", "-m", "not slow"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout

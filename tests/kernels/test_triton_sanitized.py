"""Out-of-bounds accesses and races in the Triton kernels, found without a GPU; ``make sanitize-triton``."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ttsem", reason="needs ttsem: make sanitize-triton installs it")
SCRIPT = Path(__file__).parent / "triton_sanitized.py"


def sanitize(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ttsem.sanitize", str(SCRIPT), "--", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_kernel_leaves_its_tensors_or_races() -> None:
    done = sanitize()
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "ok: 42 launch(es)" in done.stdout + done.stderr


def test_a_planted_load_past_the_end_is_found() -> None:
    done = sanitize("planted")
    assert done.returncode == 1
    assert "reads 7 element(s) past the end of the tensor passed as `bias_ptr`" in done.stdout + done.stderr

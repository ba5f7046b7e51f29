"""`make sanitize-cpu` can fail: a fault planted in the kernel ends in a report."""

import os
import subprocess
import sys

import pytest
from rls_kernels.cpu import build

CALL = """
import torch
from rls_kernels.cpu.attention import steered_attention
q, k, v = torch.randn(1, 1, 20, 7), torch.randn(1, 1, 33, 7), torch.randn(1, 1, 33, 7)
steered_attention(q, k, v, torch.zeros(1, 1, 33), torch.ones(1, 1, 1), scale=1.0)
print("done")
"""


def run(variant: str) -> "subprocess.CompletedProcess[str]":
    # Built without the checker preloaded: a compiler under it takes minutes.
    build.build_all([("avx2", "prefill", "float32")], variant)
    preload = build.sanitizer_libraries()
    environment = {**os.environ, "RLS_CPU_BUILD": variant, "RLS_CPU_ISA": "avx2", "LD_PRELOAD": preload}
    environment.update(OMP_NUM_THREADS="1", ASAN_OPTIONS="detect_leaks=0")
    return subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_read_past_the_end_is_reported() -> None:
    faulty, sound = run("sanitized_fault"), run("sanitized")
    assert faulty.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in faulty.stderr
    assert "done" not in faulty.stdout
    assert (sound.returncode, sound.stdout) == (0, "done\n"), sound.stderr[-2000:]

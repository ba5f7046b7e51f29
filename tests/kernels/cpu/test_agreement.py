"""The whole operator against float64, on each instruction set that this CPU runs."""

import os
import subprocess
import sys

import cpu_matrix
import pytest
import torch
from rls_kernels.cpu import attention, library

from rls_bench import agreement
from rls_bench.backends.cpu import BACKEND
from rls_bench.draw import draw
from rls_bench.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

# One in this many cells of the matrix; coprime with its axes, so that each option meets each other one.
EVERY = 11


def failures(problems: list[Problem]) -> list[str]:
    checked = ((problem, agreement.check(BACKEND, draw(problem))) for problem in problems)
    return [f"{problem.key}: {verdict.reason}" for problem, verdict in checked if not verdict.passed]


@pytest.mark.parametrize("shape", cpu_matrix.SHAPES, ids=str)
def test_agrees_with_float64(isa: str, shape: tuple[int, ...]) -> None:
    problems = [problem for dtype in cpu_matrix.DTYPES for problem in cpu_matrix.cells(shape, dtype)]
    assert failures(problems[::EVERY]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", cpu_matrix.SHAPES, ids=str)
def test_the_whole_matrix_agrees(isa: str, shape: tuple[int, ...]) -> None:
    problems = [problem for dtype in cpu_matrix.DTYPES for problem in cpu_matrix.cells(shape, dtype)]
    assert failures(problems) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_amx_agrees_with_its_tiles_emulated() -> None:
    # Only the tiles are emulated; what lies about them is AVX-512-BF16.
    if "avx512_bf16" not in library.library().isas():
        pytest.skip("this CPU doesn't run avx512_bf16, which the rest of the AMX kernel is made of")
    environment = {**os.environ, "RLS_CPU_BUILD": "emulated_amx", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "amx_bf16 and 64",
        "-m",
        "not slow",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_agrees_on_several_threads(dtype: str) -> None:
    torch.set_num_threads(4)
    prefill = cpu_matrix.problem((2, 4, 2, 190, 333, 64, 64), dtype, ("bk", "scalar", 3.0), is_causal=True, eps=1e-3)
    decode = cpu_matrix.problem((1, 8, 2, 1, 5000, 64, 64), dtype, ("bk", "scalar", 3.0), eps=1e-3, return_stats=True)
    assert failures([prefill, decode]) == []


def test_a_wrong_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = attention.steered_attention

    def slightly_off(*args: object, **options: object) -> torch.Tensor:
        return exact(*args, **options) * 1.001  # type: ignore[arg-type,operator]

    monkeypatch.setattr(attention, "steered_attention", slightly_off)
    problem = cpu_matrix.problem((1, 2, 2, 50, 70, 32, 32), "float32", ("bk", "scalar", 3.0))
    assert "× the floor" in failures([problem])[0]

"""The whole operator against float64, on each instruction set that this CPU runs."""

import cpu_matrix
import pytest
import torch
from cpu_matrix import failures
from rls_kernels.cpu import attention

pytestmark = pytest.mark.usefixtures("one_thread")

# One in this many cells of the matrix; coprime with its axes, so that each option meets each other one.
EVERY = 11


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

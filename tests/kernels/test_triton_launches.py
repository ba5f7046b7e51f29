"""Launches that are kept: what a driver is handed on the first call and on later ones, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
from rls_kernels.triton import attention, forward
from torch import Tensor
from triton.runtime.jit import JITFunction

from benchmarks.standin_driver import Standin

LENGTH = 48


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """An H100's driver that runs nothing; Triton's own, and what was compiled for this one, as before afterwards."""
    kernels = [value for value in vars(forward).values() if isinstance(value, JITFunction)]
    before = triton.runtime.driver._active
    standin = Standin()
    triton.runtime.driver.set_active(standin)
    monkeypatch.setattr(forward, "architecture", lambda device: 90)
    forward.prepared.cache_clear()
    for kernel in kernels:
        kernel.device_caches.clear()
    yield standin
    triton.runtime.driver._active = before
    forward.prepared.cache_clear()
    for kernel in kernels:
        kernel.device_caches.clear()


def drawn(query_length: int = LENGTH, offset: int = 0) -> tuple[Tensor, ...]:
    """Query, key, value, bias and strength; ``offset`` elements into memory that is aligned."""
    shapes = [(1, 2, query_length, 64), (1, 1, LENGTH, 64), (1, 1, LENGTH, 64)]
    halves = [torch.randn(8 + torch.Size(shape).numel()).half()[offset:] for shape in shapes]
    tensors = [half[: torch.Size(shape).numel()].view(shape) for half, shape in zip(halves, shapes, strict=True)]
    return *tensors, torch.randn(1, 1, LENGTH), torch.ones(1, 1, 1)


def pointers(arguments: Any) -> list[int]:
    """Every address among ``arguments``, in order."""
    if isinstance(arguments, Tensor):
        return [arguments.data_ptr()]
    if isinstance(arguments, tuple):
        return [address for argument in arguments for address in pointers(argument)]
    return []


def test_a_later_launch_differs_in_pointers_alone(driver: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = drawn(), drawn()
    run = attention.prepare(*first, scale=0.125)
    run(*first)
    assert [name for name, _, _ in driver.launches] == ["prefill_kernel"]
    monkeypatch.setattr(JITFunction, "run", lambda *_, **__: pytest.fail("bound and specialised anew"))
    out, _ = run(*second)
    (_, grid, before), (_, other_grid, after) = driver.launches
    assert grid == other_grid == (2, 1, 1)
    assert pointers(after[0]) == [tensor.data_ptr() for tensor in second]
    assert out.data_ptr() in pointers(after[1])
    assert not set(pointers(before[:2])) & set(pointers(after[0]))
    # All that is no pointer is the same, the constants behind it too.
    assert [one for one in before if not pointers(one)] == [one for one in after if not pointers(one)]
    assert driver.utils.loaded == ["prefill_kernel"]


def test_tensors_off_by_a_few_bytes_are_another_kernel(driver: Standin) -> None:
    aligned, off = drawn(), drawn(offset=1)
    run = attention.prepare(*aligned, scale=0.125)
    for tensors in (aligned, off, aligned):
        run(*tensors)
    # The kernel for aligned pointers never saw the others.
    assert driver.utils.loaded == ["prefill_kernel", "prefill_kernel"]
    assert [pointers(given[0])[0] for _, _, given in driver.launches] == [
        aligned[0].data_ptr(), off[0].data_ptr(), aligned[0].data_ptr(),
    ]  # fmt: skip


def test_lengths_and_heads_compile_nothing_anew(driver: Standin) -> None:
    for query_length in (33, 48, 64):
        tensors = drawn(query_length)
        attention.prepare(*tensors, scale=0.125)(*tensors)
    assert driver.utils.loaded == ["prefill_kernel"]


def test_decode_hands_what_it_wrote_to_its_reduction(driver: Standin) -> None:
    tensors = drawn(query_length=1)
    run = attention.prepare(*tensors, scale=0.125)
    run(*tensors)
    run(*tensors)
    assert [name for name, _, _ in driver.launches] == ["decode_kernel", "reduce_kernel"] * 2
    decode, reduction = (given for _, _, given in driver.launches[2:])
    assert pointers(decode[1:4]) == pointers(reduction[:3])

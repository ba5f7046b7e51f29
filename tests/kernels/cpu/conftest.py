"""What the tests of the CPU kernel share."""

from collections.abc import Iterator

import pytest
import torch
from rls_kernels.cpu import build, library

ISAS = ("avx2", "avx512", "avx512_bf16", "amx_bf16")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := build.unavailable_reason():
        for item in items:
            if "kernels/cpu" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small problems gain nothing from threads; the threaded paths have tests of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this CPU runs, forced."""
    if request.param not in library.library().isas():
        pytest.skip(f"this CPU doesn't run {request.param}")
    monkeypatch.setenv("RLS_CPU_ISA", request.param)
    return str(request.param)

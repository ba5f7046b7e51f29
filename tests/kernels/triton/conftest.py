"""Tests of the Triton kernels in Triton's interpreter, which a process must be started for.

``test_triton_interpreted.py`` one folder up runs them in such a process; by hand:
``TRITON_INTERPRET=1 pytest tests/kernels/triton``.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return None if os.environ.get("TRITON_INTERPRET") == "1" else True


@pytest.fixture(autouse=True)
def fresh_launches() -> Iterator[None]:
    """Nothing that an earlier test prepared, with its configurations, is launched."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from rls_kernels.triton import forward

    forward.prepared.cache_clear()
    yield
    forward.prepared.cache_clear()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 queries and 32 keys, or 16 masked ones: small problems have full, diagonal and hidden ones."""
    from rls_kernels.triton import configurations
    from rls_kernels.triton.configurations import Configuration

    def slices(element_bytes: int) -> int | None:
        return 16 if element_bytes == 4 else None

    def prefill(_: int, __: int, element_bytes: int, *, exact_sums: bool = False, **___: bool) -> Configuration:
        return Configuration(
            32, 32, 4, 1, partials=16, sums_by_dot=not exact_sums, bias_early=exact_sums, rows_anew=True, masked_n=16,
            slice_d=slices(element_bytes),
        )  # fmt: skip

    def narrow(*_: int, stats: bool) -> Configuration:
        return Configuration(32, 32, 4, 1, bias_early=stats, rows_anew=True, masked_n=16)

    monkeypatch.setattr(configurations, "prefill", prefill)
    monkeypatch.setattr(configurations, "narrow", narrow)

    def backward(_: int, __: int, element_bytes: int, **___: bool) -> tuple[Configuration, Configuration]:
        slice_d = slices(element_bytes)
        return Configuration(16, 32, 4, 1, slice_d=slice_d), Configuration(32, 16, 4, 1, slice_d=slice_d)

    monkeypatch.setattr(configurations, "backward", backward)

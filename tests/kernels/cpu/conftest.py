"""What the tests of the CPU kernel share."""

from collections.abc import Iterator

import pytest
import torch
from rls_kernels.cpu import build, library

ISAS = ("avx2", "avx512", "avx512_bf16", "amx_bf16")


# Last: what markers and names leave out needs no library.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one test of each instruction set that this CPU lacks; it skips and says so once for all others."""
    if reason := build.unavailable_reason():
        for item in items:
            if "kernels/cpu" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=reason))
        return
    of_sets = [item for item in items if "isa" in getattr(item, "fixturenames", ()) and isa_of(item)]
    if not of_sets:
        return
    lacking = [item for item in of_sets if isa_of(item) not in library.library().isas()]
    first = {isa_of(item): item for item in reversed(lacking)}
    dropped = {id(item) for item in lacking if item is not first[isa_of(item)]}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in dropped])
    items[:] = [item for item in items if id(item) not in dropped]


def isa_of(item: pytest.Item) -> str:
    """The instruction set that a test is for, empty where it is for none."""
    return str(getattr(getattr(item, "callspec", None), "params", {}).get("isa", ""))


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

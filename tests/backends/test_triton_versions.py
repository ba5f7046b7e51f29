"""Which versions Triton's interpreter works with; what doesn't is told before anything runs."""

from __future__ import annotations

import pytest

from rls_bench.backends import triton


@pytest.mark.parametrize(
    ("versions", "fails"),
    [
        ({"triton": "3.6.0", "numpy": "2.5.0"}, True),
        ({"triton": "3.6.0", "numpy": "2.4.0rc1"}, True),
        ({"triton": "3.6.0", "numpy": "2.3.5"}, False),
        ({"triton": "3.7.1", "numpy": "2.4.6"}, False),
    ],
)
def test_an_interpreter_that_fails_is_unavailable(
    versions: dict[str, str], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "version", versions.__getitem__)
    monkeypatch.setattr(triton.torch.cuda, "is_available", lambda: False)
    answer = triton.BACKEND.available()
    assert bool(answer) is not fails
    assert ("numpy<2.4" in answer.reason) is fails
    # A GPU needs no interpreter.
    monkeypatch.setattr(triton.torch.cuda, "is_available", lambda: True)
    assert triton.BACKEND.available()

"""The one test that a backend package needs; the fixture comes with rls-bench."""

from __future__ import annotations

from typing import Any


def test_tiled_conforms(steered_backend: Any) -> None:
    assert steered_backend("rls_custom_backend.tiled:BACKEND").name == "tiled"

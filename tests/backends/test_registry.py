"""Backends by name, installed or not."""

from __future__ import annotations

import importlib.metadata

import pytest

from rls_bench.backends import registry


@pytest.fixture(autouse=True)
def forgotten() -> None:
    registry._entries.cache_clear()


def test_a_checkout_that_was_never_installed_has_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=registry.GROUP)}
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    found = {name: entry.value for name, entry in registry._entries().items()}
    registry._entries.cache_clear()
    assert {"eager", "triton", "unsteered"} <= set(found)
    assert found.items() <= installed.items()

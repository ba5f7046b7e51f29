"""Backends by name, installed or not."""

from __future__ import annotations

import importlib.metadata

import pytest

from rls_bench.backends import registry
from rls_bench.errors import BackendUnavailable


@pytest.fixture(autouse=True)
def forgotten() -> None:
    registry._entries.cache_clear()


def test_a_checkout_that_was_never_installed_has_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=registry.GROUP)}
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    found = {name: entry.value for name, (entry,) in registry._entries().items()}
    registry._entries.cache_clear()
    assert {"eager", "triton", "unsteered"} <= set(found)
    assert found.items() <= installed.items()


def test_a_name_that_two_packages_took_is_neither_s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = importlib.metadata.EntryPoint("eager", "elsewhere.kernels:BACKEND", registry.GROUP)
    found = [*importlib.metadata.entry_points(group=registry.GROUP), theirs]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    with pytest.raises(BackendUnavailable, match="eager:BACKEND and as elsewhere"):
        registry.find("eager")
    assert "eager" in registry.names()
    assert registry.find("flex")

"""The public-domain English that real models read here."""

from __future__ import annotations

from importlib.resources import files


def read(name: str) -> str:
    """A shipped text: ``alice``, ``moby_dick`` or ``pride_and_prejudice``."""
    return (files("rls_bench") / "data" / "texts" / f"{name}.txt").read_text(encoding="utf-8")

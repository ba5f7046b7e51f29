"""Inspections kept on disk, so that what didn't change isn't compiled again."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from rls_bench.inspector import compile as compiler
from rls_bench.inspector.inspection import Case, Inspection
from rls_bench.inspector.occupancy import LIMITS

_RULES = ("compile.py", "disassemble.py", "inspection.py", "loops.py", "occupancy.py", "products.py", "sass.py")


class Cache:
    """Inspections on disk, one JSON file a case, named by everything that the result depends on."""

    def __init__(self, folder: Path, ignore_kept: bool = False) -> None:
        self.folder = folder
        self.ignore_kept = ignore_kept
        self._toolchain = compiler.toolchain()
        # The counting rules are code, too: a change of them makes every kept result another one.
        rules = (Path(__file__).parent / name for name in _RULES)
        self._rules = hashlib.sha256(b"".join(path.read_bytes() for path in rules)).hexdigest()

    def get(self, case: Case) -> Inspection | None:
        """The kept inspection of ``case``, or None; a file that cannot be read counts as none."""
        if self.ignore_kept:
            return None
        try:
            return msgspec.json.decode(self._path(case).read_bytes(), type=Inspection)
        except (OSError, msgspec.MsgspecError):
            return None

    def put(self, case: Case, inspection: Inspection) -> None:
        """Keep ``inspection`` where that can be; two processes may keep the same one at a time."""
        path = self._path(case)
        part = path.with_suffix(f".{os.getpid()}.part")
        # A cache that cannot be written only costs the time of the next inspection.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(inspection))
            part.replace(path)

    def _path(self, case: Case) -> Path:
        # Triton's key of the function covers its source and that of every function it calls.
        parts: list[Any] = [
            compiler.load(case.source).cache_key,
            self._toolchain,
            self._rules,
            case.arch,
            sorted(LIMITS[case.arch].__dict__.items()),
            case.variant,
            case.block_m,
            case.block_n,
            case.multiply_adds,
            case.source.function,
            sorted(case.source.signature.items()),
            sorted((name, str(value)) for name, value in case.source.constexprs.items()),
            case.source.aligned,
            case.source.num_warps,
            case.source.num_stages,
            sorted((name, str(value)) for name, value in case.source.options.items()),
        ]
        return self.folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"

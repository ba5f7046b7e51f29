"""``rls-bench doctor``: this machine, its versions, what is missing and the line that mends it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that rls_bench can use: what was found, and how to get it where it wasn't."""

    what: str
    found: str
    mend: str = ""


def doctor() -> None:
    """Show the machine, the versions, what is missing and the line that mends it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for column in ("what", "found", "to mend"):
        table.add_column(column, overflow="fold")
    for finding in findings():
        table.add_row(finding.what, escape(finding.found), escape(finding.mend))
    Console().print(table)


def findings() -> list[Finding]:
    """Everything that ``doctor`` looks at."""
    from rls_bench.machines.host import current

    machine = current()
    return [
        Finding("machine", f"{machine.title} (fingerprint {machine.fingerprint})"),
        Finding("instruction sets", " ".join(machine.cpu_isa) or "none that a kernel asks for"),
        Finding("memory", f"{machine.memory_bytes / 2**30:.0f} GiB"),
        Finding("python", machine.python),
        Finding("torch", machine.torch),
        Finding("triton", machine.triton or "missing", "" if machine.triton else "pip install triton (Linux only)"),
        Finding("cuda", machine.cuda or "none", "" if machine.cuda else "a CUDA build of torch and a GPU"),
        Finding("driver", machine.driver or "none", "" if machine.driver else "install the NVIDIA driver"),
        _compiler(),
        _program("ncu", "install Nsight Compute, or read a report made elsewhere: rls-bench profile --import FILE"),
        _program("nsys", "install Nsight Systems; torch's profiler serves without it"),
        _module("transformers", "models"),
        _module("cv2", "models"),
        _module("ncu_report", "profile"),
        *_backends(),
    ]


def _compiler() -> Finding:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    return Finding("C++ compiler", path or f"{name} is missing", "" if path else "apt-get install g++, or set CXX")


def _program(name: str, mend: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path or "missing", "" if path else mend)


def _module(name: str, extra: str) -> Finding:
    found = find_spec(name) is not None
    return Finding(name, "installed" if found else "missing", "" if found else f"pip install 'rls-bench[{extra}]'")


def _backends() -> list[Finding]:
    from rls_bench.backends import registry
    from rls_bench.errors import BackendUnavailable

    found = []
    for name in registry.names():
        try:
            available = registry.get(name).available()
            found.append(Finding(f"backend {name}", "available" if available else "unavailable", available.reason))
        except BackendUnavailable as error:
            found.append(Finding(f"backend {name}", "broken", str(error)))
    return found

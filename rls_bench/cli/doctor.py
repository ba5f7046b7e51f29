"""``rls-bench doctor``: this machine, its versions, what is missing and the line that mends it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Annotated, NamedTuple

import typer

from rls_bench.cli import documents


class Finding(NamedTuple):
    """One thing that rls_bench can use: what was found, and how to get it where it wasn't."""

    name: str
    found: str
    mend: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="One object with all findings.")] = False) -> None:
    """Show the machine, the versions, what is missing and the line that mends it."""
    from rls_bench.cli import list as listing

    backends = listing.backends_here()
    if json:
        import msgspec

        report = {"findings": [one._asdict() for one in findings()], "backends": [one._asdict() for one in backends]}
        documents.write_json(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    from rich.table import Table
    from rich.text import Text

    from rls_bench.cli.console import Console

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings():
        status = Text("missing", "yellow") if finding.mend else Text("ok", "green")
        table.add_row(status, finding.name, f"{finding.found}: {finding.mend}" if finding.mend else finding.found)
    for found, names in listing.by_status(backends).items():
        status = Text("missing", "yellow") if found.why else Text("ok", "green")
        table.add_row(status, "backends", f"{found.why or found.status}: {', '.join(names)}")
    Console().print(table)


def findings() -> list[Finding]:
    """Everything that ``doctor`` looks at but the backends."""
    from rls_bench.machines.host import current

    machine = current()
    return [
        Finding("machine", f"{machine.title} (fingerprint {machine.fingerprint})"),
        Finding("instructions", " ".join(machine.cpu_isa) or "none that a kernel asks for"),
        Finding("memory", f"{machine.memory_bytes / 2**30:.0f} GiB"),
        Finding("python", machine.python),
        Finding("torch", machine.torch),
        Finding("triton", machine.triton or "none", "" if machine.triton else "pip install triton (Linux only)"),
        Finding("cuda", machine.cuda or "none", "" if machine.cuda else "a CUDA build of torch and a GPU"),
        Finding("driver", machine.driver or "none", "" if machine.driver else "install NVIDIA's driver"),
        _compiler(),
        _program("ncu", "install Nsight Compute, or profile --import FILE"),
        _program("nsys", "install Nsight Systems; torch's profiler serves, too"),
        _module("transformers", "models"),
        _module("cv2", "models"),
        _module("ncu_report", "profile"),
    ]


def _compiler() -> Finding:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    return Finding("C++ compiler", path or f"no {name}", "" if path else "apt-get install g++, or set CXX")


def _program(name: str, mend: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path or "none", "" if path else mend)


def _module(name: str, extra: str) -> Finding:
    found = find_spec(name) is not None
    return Finding(name, "installed" if found else "none", "" if found else f"pip install 'rls-bench[{extra}]'")

"""The fresh process of one task: a plan comes in, its records go out. ``--hello`` says what machine this is.

Started by the agent on the device's machine, and dead as soon as the agent is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from rls_bench.fleet.words import Hello
from rls_bench.runner import Plan, kin


def hello() -> bytes:
    """What this machine is, as JSON; imports torch."""
    from importlib.metadata import PackageNotFoundError, version

    from rls_bench.machines import host
    from rls_bench.runner import provenance

    try:
        installed = version("rls-bench")
    except PackageNotFoundError:
        installed = "none"
    commit, dirty, _ = provenance.git_commit()
    words = Hello(host.current(), host.device(), installed, (commit or "") + "+changes" * dirty)
    return msgspec.json.encode(words)


def measure(plan: bytes) -> bytes:
    """The records of a plan, as they lie in a results file."""
    from rls_bench import runner

    with tempfile.TemporaryDirectory(prefix="rls-bench-fleet-") as folder:
        out = Path(folder) / "records.jsonl"
        runner.run(msgspec.json.decode(plan, type=Plan), out)
        return out.read_bytes()


def main(words: list[str]) -> int:
    """Answer on standard output, which nobody else may write to."""
    kin.die_with_parent()
    answer = os.dup(1)
    os.dup2(2, 1)
    work: Callable[[], bytes] = hello if "--hello" in words else lambda: measure(sys.stdin.buffer.read())
    with os.fdopen(answer, "wb") as file:
        file.write(work())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

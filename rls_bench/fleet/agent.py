"""Holds one device for as long as a fleet wants it: an actor that starts a fresh process for each task.

It imports neither torch nor a backend. What Ray set for its own workers is taken back before a task starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from rls_bench.fleet.words import Hello, Measured

MEASURE = (sys.executable, "-m", "rls_bench.fleet.measure")
_TAIL_BYTES = 2000


class Agent:
    """One device, a processor where ``is_cpu``; ``command`` measures a plan, within ``deadline_seconds``."""

    def __init__(self, is_cpu: bool, command: Sequence[str] = (), deadline_seconds: float = 3600.0) -> None:
        self._is_cpu = is_cpu
        # This machine's own interpreter, unless a caller knows better.
        self._command = [*(command or MEASURE)]
        self._deadline_seconds = deadline_seconds

    def hello(self) -> Hello:
        """What machine this is; raises RuntimeError where rls_bench cannot run here."""
        done = self._run([*MEASURE, "--hello"], b"")
        if done.code:
            raise RuntimeError(f"rls_bench cannot say what this machine is: {done.reason}")
        return replace(msgspec.json.decode(done.records, type=Hello), pid=os.getpid())

    def measure(self, plan: bytes) -> Measured:
        """Carry out ``plan`` in a fresh process."""
        return self._run(self._command, plan)

    def _run(self, command: list[str], words: bytes) -> Measured:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(os.environ, self._is_cpu),
        )
        try:
            answer, errors = process.communicate(words, timeout=self._deadline_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Measured(process.pid, process.returncode, reason=f"no answer within {self._deadline_seconds:g} s")
        if process.returncode:
            lines = errors[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
            said = f": {lines[-1].strip()}" if lines else ""
            return Measured(process.pid, process.returncode, reason=f"ended with {process.returncode}{said}")
        return Measured(process.pid, 0, answer)


def names() -> tuple[str, ...]:
    """What this machine's devices are called: its processor, then its GPUs."""
    from rls_bench.machines import host

    return host.device_names()


def environment(given: Mapping[str, str], is_cpu: bool) -> dict[str, str]:
    """``given`` without what Ray added: above all OMP_NUM_THREADS=1, which would measure one core."""
    kept = {name: value for name, value in given.items() if not name.startswith("RAY_")}
    if (before := _before_ray(given)) is not None:
        # A GPU that Ray counts is shown by Ray; one that it doesn't must not be hidden.
        own = ("OMP_NUM_THREADS",) if kept.get("CUDA_VISIBLE_DEVICES") else ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        for name in own:
            kept.pop(name, None)
            if name in before:
                kept[name] = before[name]
    return {**kept, "CUDA_VISIBLE_DEVICES": ""} if is_cpu else kept


def _before_ray(given: Mapping[str, str]) -> dict[str, str] | None:
    """The variables that Ray itself was started with on this node; None outside Ray."""
    try:
        raw = Path(f"/proc/{int(given['RAY_RAYLET_PID'])}/environ").read_bytes()
    except (KeyError, ValueError, OSError):
        return None
    pairs = (line.partition("=") for line in raw.decode(errors="surrogateescape").split("\0") if line)
    return {name: value for name, _, value in pairs}

"""What driver, agents and machines tell each other; all of it survives JSON."""

from __future__ import annotations

from dataclasses import dataclass

from rls_bench.machines.machine import Machine
from rls_bench.policy.file import VALIDITY


@dataclass(frozen=True)
class Hello:
    """What a device says of itself: ``device`` is ``cpu`` or ``cuda``, ``commit`` that of its checkout, if any."""

    machine: Machine
    device: str
    version: str
    commit: str
    pid: int = 0

    @property
    def versions(self) -> dict[str, str]:
        """Everything but the hardware that must be alike for figures to be."""
        known = {name: getattr(self.machine, name) for name in VALIDITY if name != "fingerprint"}
        own = {"rls_bench": self.version, "commit": self.commit, "python": self.machine.python}
        return {name: str(value or "none") for name, value in {**known, **own}.items()}


@dataclass(frozen=True)
class Measured:
    """How one process ended: its records, one JSON object a line, or why there are none."""

    pid: int
    code: int
    records: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class Lost:
    """A device that will answer no more, and why."""

    reason: str

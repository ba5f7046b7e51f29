"""What one stage does, in its own process: ``python -m rls_bench.survey.work STAGE OUT DEVICE DEADLINE PARENT``.

A stage writes what it finds as it finds it, reads first what an earlier survey left, and ends by itself at its
deadline, seconds on the machine's monotonic clock; it says on the last line what is left to do then.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rls_bench.runner.kin import die_with_parent


@dataclass(frozen=True)
class Task:
    """Where a stage's results go, what it runs on, and when it must be over on the monotonic clock."""

    out: Path
    device: str
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def main(name: str, out: str, device: str, deadline: str, parent: str) -> int:
    """Do the stage called ``name``; the exit code says whether all of it was done."""
    die_with_parent()
    # The survey may have died before that was asked for.
    if os.getppid() != int(parent):
        return 1
    from rls_bench.survey import checking, concluding, looking, measuring
    from rls_bench.survey.conductor import PARTIAL

    work = {
        "compile": looking.compile_all,
        "doctor": looking.doctor,
        "agreement": checking.branches,
        "tuning": looking.tune,
        "telling": measuring.telling,
        "profile": looking.profile,
        "bench": measuring.bench,
        "conformance": checking.small,
        "memory": looking.memory,
        "conclusion": concluding.conclude,
    }
    unfinished = work[name](Task(Path(out), device, float(deadline)))
    if unfinished:
        print(unfinished)
        return PARTIAL
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

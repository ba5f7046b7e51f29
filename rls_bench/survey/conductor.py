"""Runs the stages one after another within a budget; what one of them does to itself, the others don't feel.

Under ``out`` lie ``stages.jsonl`` (how each stage ended), a file of rows for most stages, ``logs/`` with what they
printed, and at the end ``survey.md``. A second survey into the same folder leaves out what ended well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rls_bench.errors import RlsBenchError
from rls_bench.runner.process import environment
from rls_bench.survey import rows
from rls_bench.survey.stages import LAST, STAGES, Stage, share

# "ok": all done. "partial": it ended in time with some of it left. "not here": this machine can't.
Status = Literal["ok", "partial", "not here", "failed", "timeout", "skipped"]
DONE = ("ok", "not here")
# How a stage's process says that some of its work is left; any other code but 0 is a failure.
PARTIAL = 75
# How a stage's last line begins where all was done and there is something to know about it.
NOTE = "note: "
# Between a stage's own deadline and its end by force; a third of it after an interrupt, on which it writes what it has.
_GRACE_SECONDS = 9.0
_POLL_SECONDS = 0.1
# The page after the stages. Where the program took longer to start, other work has the cores, and the page has as long.
_PAGE_SECONDS = 8.0
# A process that is killed is gone at once, unless a driver holds it in a call that cannot be interrupted.
_REAP_SECONDS = 2.0
_TAIL_BYTES = 4000

Told = Callable[[Stage, Status, str, float], None]


def survey(
    out: Path, device: str, minutes: float, tell: Told = lambda *_: None, began: float | None = None
) -> list[rows.Row]:
    """Run what is left to do into ``out`` within ``minutes``, and leave the caller time to tell of it.

    The minutes count from ``began`` on the monotonic clock, which is when the program started; from now on without it.
    Returns the last word on every stage, in order. Raises RlsBenchError where ``out`` cannot be written or holds the
    survey of another device.
    """
    now = time.monotonic()
    began = now if began is None else began
    ends = began + minutes * 60 - max(_PAGE_SECONDS, now - began)
    _claim(out, device)
    ended = {row["stage"]: row for row in rows.read(out / "stages.jsonl")}
    todo = [stage for stage in STAGES if ended.get(stage.name, {}).get("status") not in DONE]
    # What came in after it makes another conclusion.
    if todo and LAST not in todo:
        todo.append(LAST)
    starting = [stage for stage in todo if stage.beside and stage.runs_on(device)]
    beside = {stage: _Process(stage, out, device, _left(ends)) for stage in starting}
    try:
        for stage in [each for each in todo if not each.beside]:
            if not stage.runs_on(device):
                _note(out, tell, stage, "not here", stage.cuda_only, 0.0)
                continue
            to_come = [each for each in todo[todo.index(stage) :] if not each.beside and each.runs_on(device)]
            # From the first stage that measures on, every stage works alone.
            if beside and stage.name not in ("doctor", "agreement"):
                _finish(beside, out, tell, share(to_come, _left(ends)))
            _note(out, tell, stage, *_run(stage, out, device, share(to_come, _left(ends))))
        _finish(beside, out, tell, 0.0)
    finally:
        for process in beside.values():
            process.end()
    last = {row["stage"]: row for row in rows.read(out / "stages.jsonl")}
    return [last[stage.name] for stage in STAGES if stage.name in last]


def _claim(out: Path, device: str) -> None:
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        owner = out / "device"
        if not owner.exists():
            owner.write_text(device)
        found = owner.read_text()
    except OSError as error:
        raise RlsBenchError(f"survey {out}: cannot be written ({error.strerror})") from error
    if found != device:
        raise RlsBenchError(f"survey {out}: is of device {found}; wanted {device}: choose another --out")


def _left(ends: float) -> float:
    return ends - time.monotonic()


def _run(stage: Stage, out: Path, device: str, seconds: float) -> tuple[Status, str, float]:
    """Run one stage to its end or its deadline: how it ended, why, and the seconds that it took."""
    if not seconds:
        return "skipped", f"less than the {stage.least_seconds:.0f} s were left that it needs", 0.0
    process = _Process(stage, out, device, seconds)
    try:
        return process.wait(seconds)
    finally:
        process.end()


def _finish(beside: dict[Stage, _Process], out: Path, tell: Told, seconds: float) -> None:
    """Wait ``seconds`` for the stages that work beside others, then end them."""
    for stage, process in list(beside.items()):
        _note(out, tell, stage, *process.wait(seconds))
        process.end()
        del beside[stage]


def _note(out: Path, tell: Told, stage: Stage, status: Status, reason: str, seconds: float) -> None:
    rows.append(
        out / "stages.jsonl",
        {"stage": stage.name, "status": status, "reason": reason, "seconds": round(seconds, 1)},
    )
    tell(stage, status, reason, seconds)


def command(stage: Stage, out: Path, device: str, deadline: float) -> list[str]:
    """The command line of a stage that must be over at ``deadline`` on the monotonic clock."""
    words = [stage.name, str(out), device, f"{deadline:.1f}", str(os.getpid())]
    return [sys.executable, "-m", "rls_bench.survey.work", *words]


class _Process:
    """A stage's process, in a group of its own."""

    def __init__(self, stage: Stage, out: Path, device: str, seconds: float) -> None:
        self._began = time.monotonic()
        self._log = out / "logs" / f"{stage.name}.log"
        line = command(stage, out, device, self._began + seconds - _GRACE_SECONDS)
        with self._log.open("ab") as log:
            self._starts_at = log.tell()
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment(), "PYTHONUNBUFFERED": "1", "KINETO_LOG_LEVEL": "99"},
                start_new_session=True,
            )

    def wait(self, seconds: float) -> tuple[Status, str, float]:
        """How the stage ended, interrupted shortly before ``seconds`` are over and killed where that doesn't help."""
        deadline = time.monotonic() + seconds
        interrupted = False
        while self._process.poll() is None and time.monotonic() < deadline:
            if not interrupted and time.monotonic() > deadline - _GRACE_SECONDS / 3:
                self._process.send_signal(signal.SIGINT)
                interrupted = True
            time.sleep(_POLL_SECONDS)
        took = time.monotonic() - self._began
        code = self._process.poll()
        if code == 0:
            said = self._last_line()
            return "ok", said.removeprefix(NOTE) if said.startswith(NOTE) else "", took
        if code == PARTIAL:
            return "partial", self._last_line(), took
        if code is None or interrupted:
            return "timeout", f"not done within {took:.0f} s", took
        died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return "failed", f"{died}: {self._last_line()}", took

    def end(self) -> None:
        """End the stage and whatever it started in its group; its workers die with it."""
        # A stage that ended by itself leaves no group.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)

    def _last_line(self) -> str:
        text = self._log.read_bytes()[self._starts_at :][-_TAIL_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"

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
from rls_bench.survey.stages import LEAST_SECONDS, STAGES, Stage, share

# "ok": all done. "partial": it ended in time with some of it left. "not here": this machine can't.
Status = Literal["ok", "partial", "not here", "failed", "timeout", "skipped"]
DONE = ("ok", "not here")
# How a stage's process says that some of its work is left; any other code but 0 is a failure.
PARTIAL = 75
# Between an interrupt, after which a stage still writes what it has, and the end.
_GRACE_SECONDS = 6.0
_POLL_SECONDS = 0.1
_TAIL_BYTES = 4000

Told = Callable[[Stage, Status, str, float], None]


def survey(out: Path, device: str, minutes: float, tell: Told = lambda *_: None) -> list[rows.Row]:
    """Run what is left to do into ``out`` within ``minutes``; the last word on every stage, in order.

    Raises RlsBenchError where ``out`` cannot be written or holds the survey of another device.
    """
    began = time.monotonic()
    _claim(out, device)
    ended = {row["stage"]: row for row in rows.read(out / "stages.jsonl")}
    todo = [stage for stage in STAGES if ended.get(stage.name, {}).get("status") not in DONE]
    # What came in after it makes another conclusion.
    if todo and STAGES[-1] not in todo:
        todo.append(STAGES[-1])
    beside = {
        stage: _Process(stage, out, device, minutes * 60) for stage in todo if stage.beside and _runs(stage, device)
    }
    try:
        for stage in [each for each in todo if not each.beside]:
            left = minutes * 60 - (time.monotonic() - began)
            seconds = share(stage, [each for each in todo[todo.index(stage) :] if not each.beside], left)
            # The first stage that measures works alone.
            if stage.name not in ("doctor", "agreement"):
                left -= _finish(beside, out, tell, min(seconds, left / 4))
            _note(out, tell, stage, *_run(stage, out, device, seconds))
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


def _runs(stage: Stage, device: str) -> bool:
    return device == "cuda" or not stage.cuda_only


def _run(stage: Stage, out: Path, device: str, seconds: float) -> tuple[Status, str, float]:
    """Run one stage to its end or its deadline: how it ended, why, and the seconds that it took."""
    if not _runs(stage, device):
        return "not here", stage.cuda_only, 0.0
    if seconds < LEAST_SECONDS:
        return "skipped", f"{max(0.0, seconds):.0f} s were left for it", 0.0
    process = _Process(stage, out, device, seconds)
    try:
        return process.wait(seconds)
    finally:
        process.end()


def _finish(beside: dict[Stage, _Process], out: Path, tell: Told, seconds: float) -> float:
    """Wait ``seconds`` for the stages that work beside others, then end them; the seconds that this took."""
    began = time.monotonic()
    for stage, process in list(beside.items()):
        _note(out, tell, stage, *process.wait(seconds))
        process.end()
        del beside[stage]
    return time.monotonic() - began


def _note(out: Path, tell: Told, stage: Stage, status: Status, reason: str, seconds: float) -> None:
    rows.append(
        out / "stages.jsonl",
        {"stage": stage.name, "status": status, "reason": reason, "seconds": round(seconds, 1)},
    )
    tell(stage, status, reason, seconds)


class _Process:
    """A stage's process, in a group of its own."""

    def __init__(self, stage: Stage, out: Path, device: str, seconds: float) -> None:
        self._began = time.monotonic()
        self._log = out / "logs" / f"{stage.name}.log"
        words = [stage.name, str(out), device, f"{max(1.0, seconds - _GRACE_SECONDS):.1f}", str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rls_bench.survey.work", *words],
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
            if not interrupted and time.monotonic() > deadline - _GRACE_SECONDS / 2:
                self._process.send_signal(signal.SIGINT)
                interrupted = True
            time.sleep(_POLL_SECONDS)
        took = time.monotonic() - self._began
        code = self._process.poll()
        if code is None or (interrupted and code != 0):
            return "timeout", f"not done within {took:.0f} s", took
        if code == 0:
            return "ok", "", took
        if code == PARTIAL:
            return "partial", self._last_line(), took
        died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return "failed", f"{died}: {self._last_line()}", took

    def end(self) -> None:
        """End the stage and whatever it started in its group; its workers die with it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_line(self) -> str:
        text = self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"

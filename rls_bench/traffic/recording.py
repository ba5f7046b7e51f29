"""Records a workload: ``with record_workload("trace.jsonl"): …``, or RLS_BENCH_RECORD=trace.jsonl for a whole process.

What ``steered_attention``, plans and steered models are asked is counted by shape and option; no tensor is read or
kept. Each process appends what it counted every few seconds and when it ends, so that one which is killed loses those
seconds at most. A forked process counts for itself. Calls within code that torch.compile compiled are not seen.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from rls_bench.errors import RecordError
from rls_bench.problems.problem import Problem
from rls_bench.traffic import counting, trace

VARIABLE = "RLS_BENCH_RECORD"
INTERVAL_SECONDS = 5.0


class RecordingWarning(UserWarning):
    """A workload could not be written down; what was counted is kept for the next try."""


@contextmanager
def record_workload(path: str | Path, *, interval_seconds: float = INTERVAL_SECONDS) -> Iterator[None]:
    """Count what is asked of steered attention in this process, and append it to ``path``, while the context is open.

    Args:
        path: a JSON-lines file, made where it is missing; several processes may share it. ``rls-bench workload`` reads
            it.
        interval_seconds: how often what was counted is written, > 0; a killed process loses no more.

    Raises ValueError for an interval that is none, RecordError where nothing can be written to ``path``.
    """
    recorder = _Recorder(Path(path), interval_seconds)
    recorder.start()
    try:
        yield
    finally:
        recorder.stop()


def follow_environment() -> None:
    """Record for as long as the process lives, if RLS_BENCH_RECORD names a file; looked up once.

    Where nothing can be written there a warning says so: a server must not stop for being counted.
    """
    global _asked
    if _asked:
        return
    with _LOCK:
        if _asked:
            return
        _asked = True
    if path := os.environ.get(VARIABLE):
        try:
            _Recorder(Path(path), INTERVAL_SECONDS).start()
        except RecordError as error:
            warnings.warn(f"{VARIABLE}: {error}; nothing is recorded", RecordingWarning, stacklevel=3)


class _Recorder:
    """Counts, and a thread that writes them down."""

    def __init__(self, path: Path, interval_seconds: float) -> None:
        if not 0 < interval_seconds < float("inf"):
            raise ValueError(f"interval_seconds: wanted a number > 0; got {interval_seconds}")
        # Whoever changes the working directory later means the same file.
        self._path, self._interval = path.absolute(), interval_seconds
        self._begin()

    def _begin(self) -> None:
        self.counts = counting.Counts()
        self.counts.on_new = self._write_regularly
        self._process, self._began = uuid4().hex, time.time()
        self._written: dict[Problem, int] = {}
        self._told: tuple[int, int] = (0, 0)
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to count. Raises RecordError where nothing can be written."""
        try:
            self._append({}, 0, 0)
        except OSError as error:
            raise RecordError(f"workload {self._path}: cannot be written ({error.strerror or error})") from error
        _live.append(self)
        _register_once()
        counting.start(self.counts)

    def stop(self) -> None:
        """Count no longer, and write what was counted."""
        if self not in _live:
            return
        _live.remove(self)
        counting.stop(self.counts)
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.write()

    def begin_in_child(self) -> None:
        """In a forked process: from nothing, under a name of its own."""
        self._begin()

    def write(self) -> None:
        """Append what changed since the last time; a failure warns, and nothing is lost but time."""
        with self._lock:
            calls, uncounted, requests = self.counts.read()
            changed = {problem: number for problem, number in calls.items() if number != self._written.get(problem)}
            if not changed and (uncounted, requests) == self._told:
                return
            try:
                self._append(changed, uncounted, requests)
            except OSError as error:
                warnings.warn(f"workload {self._path}: cannot be written ({error})", RecordingWarning, stacklevel=2)
                return
            self._written, self._told = calls, (uncounted, requests)

    def _append(self, changed: dict[Problem, int], uncounted: int, requests: int) -> None:
        calls: dict[str, dict[str, int]] = {}
        for problem, number in changed.items():
            calls.setdefault(problem.device, {})[problem.title] = number
        trace.append(self._path, trace.Line(self._process, self._began, time.time(), calls, uncounted, requests))

    def _write_regularly(self) -> None:
        """Start the thread that writes, where it isn't there: by the first call, since a fork leaves threads behind."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name="rls_bench workload", daemon=True)
                self._thread.start()
                _finish_with_a_worker(self)

    def _run(self) -> None:
        ended = self._ended
        while not ended.wait(self._interval):
            self.write()


_LOCK = threading.Lock()
_asked = False
_live: list[_Recorder] = []
_registered = False


def _register_once() -> None:
    """What must happen when the process forks or ends; nothing of it before something is recorded."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_after_fork)
        atexit.register(_stop_all)


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()
    for recorder in _live:
        recorder.begin_in_child()
    counting.begin_anew(tuple(recorder.counts for recorder in _live))


def _stop_all() -> None:
    for recorder in [*_live]:
        recorder.stop()


def _finish_with_a_worker(recorder: _Recorder) -> None:
    """A process of multiprocessing ends without atexit, but runs what stands here."""
    from multiprocessing import parent_process, util

    if parent_process() is not None:
        util.Finalize(None, recorder.stop, exitpriority=0)

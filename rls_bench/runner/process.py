"""The coordinator's end of one worker process: start it, ask it, and tell why it died."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from rls_bench.backends.words import one_line
from rls_bench.records.record import Status
from rls_bench.referee import sealed, wire
from rls_bench.referee.wire import Channel, Closed, Garbled
from rls_bench.runner import kin, messages
from rls_bench.runner.nursery import Forked, Nursery

# GNU OpenMP's threads spin for some 10 ms after a call, into the next worker's turn. A tenth of its default count ends
# that within 1 ms and leaves calls as fast as they were; OMP_WAIT_POLICY=passive would slow small ones by two fifths.
_OPENMP = {"GOMP_SPINCOUNT": "30000"}
# How often a waiting coordinator looks whether the worker still lives; a socket held open by a stray child hides that.
_LOOK_SECONDS = 0.25
# A coordinator that was away for this long, stopped or starved, doesn't count it as the worker's silence.
_AWAY_SECONDS = 2.0
_ERRORS_TAIL_BYTES = 8000
# What torch writes below a CUDA error, whatever the error was, and what its profiler writes at its end.
_ADVICE = (
    "Search for `",
    "CUDA kernel errors might be",
    "For debugging consider",
    "Compile with `TORCH_USE_CUDA_DSA`",
)
_LOG_PREFIXES = ("[I", "[W", "I0", "W0", "STAGE:", "INFO:", "USDT:")
_PROFILER = "kineto"
# How long a worker whose socket has closed may take to die.
_GRACE_SECONDS = 2.0


def environment() -> dict[str, str]:
    """The variables of a fresh worker or nursery: this process's own, its import path, and how OpenMP waits."""
    return {**_OPENMP, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class WorkerLost(Exception):
    """The worker died or had to be killed; ``status`` and ``reason`` are its cell's."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason


class NurseryLost(Exception):
    """The process that workers are forked from is gone, and all of them with it."""


class _Started(subprocess.Popen[bytes]):
    """A worker process started from nothing."""

    def __init__(self, backend: str, passed: tuple[int, int], printed: int, errors: int) -> None:
        super().__init__(
            [sys.executable, "-m", "rls_bench.runner.worker", backend, *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            pass_fds=passed,
            env=environment(),
        )

    def died(self) -> bool:
        """Whether the process is over; it stays to be reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Worker:
    """One warm process that holds one backend, in a process group of its own.

    It inherits this process's import path, so that a backend that the caller can import is found there, too. What it
    prints goes to temporary files, and the last line of its errors explains a death. Results are handed over in its
    ``tray``. With a ``nursery`` it is forked there, else started from nothing. ``waiting`` is called several times a
    second while a reply is waited for; what it raises ends the wait, and not the worker.
    """

    def __init__(
        self, backend: str, nursery: Nursery | None = None, waiting: Callable[[], None] = lambda: None
    ) -> None:
        self.backend = backend
        self._waiting = waiting
        self._nursery = nursery
        self._serial: int | None = None
        self._resources = ExitStack()
        printed = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._errors = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.tray = sealed.tray()
        self._resources.callback(os.close, self.tray)
        ours, theirs = wire.pair()
        self._process: _Started | Forked
        with theirs:
            outputs = printed.fileno(), self._errors.fileno()
            try:
                if nursery is None:
                    raise ConnectionError("no nursery")
                self._process = nursery.fork(backend, (theirs.fileno(), self.tray, *outputs))
            except OSError:
                self._nursery = None
                self._process = _Started(backend, (theirs.fileno(), self.tray), *outputs)
        # No descriptor is ever taken from a worker.
        self._channel = Channel(ours, messages.Reply)
        self._resources.callback(self._channel.close)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def ask(self, request: messages.Request, timeout_seconds: float, descriptors: Sequence[int] = ()) -> messages.Reply:
        """Send ``request`` and wait for its reply; raises WorkerLost, with the worker ended, where none comes."""
        self.tell(request, descriptors)
        return self.reply(timeout_seconds)

    def tell(self, request: messages.Request, descriptors: Sequence[int] = ()) -> None:
        """Send ``request`` and don't wait; raises WorkerLost."""
        try:
            if (stray := self._channel.receive(0.0)) is not None:
                raise Garbled(f"a {type(stray.message).__name__} that nobody asked for")
            self._serial = secrets.randbits(48)
            self._channel.send(self._serial, request, descriptors)
        except Closed:
            raise self._lost() from None
        except Garbled as error:
            raise self._garbled(error) from error

    def answers(self, seconds: float) -> bool:
        """Whether there is something to read, a reply or the worker's end, within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not select.select([self._channel], [], [], max(0.0, min(deadline - time.monotonic(), _LOOK_SECONDS)))[0]:
            self._waiting()
            if time.monotonic() >= deadline:
                return False
            if self._died():
                return True
        return True

    def reply(self, timeout_seconds: float) -> messages.Reply:
        """Wait for the reply to what was told; raises WorkerLost."""
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            self._waiting()
            began, died = time.monotonic(), self._died()
            try:
                # A worker that died may have answered first.
                letter = self._channel.receive(0.0 if died else min(left, _LOOK_SECONDS))
                if letter is not None and letter.serial != self._serial:
                    raise Garbled(f"a {type(letter.message).__name__} that answers no question")
            except Closed:
                raise self._lost() from None
            except Garbled as error:
                raise self._garbled(error) from error
            if letter is not None:
                self._serial = None
                reply: messages.Reply = letter.message
                return reply
            if died:
                raise self._lost()
            if (away := time.monotonic() - began) > _AWAY_SECONDS:
                deadline += away
        self.stop()
        raise WorkerLost("timeout", f"no answer within {timeout_seconds:g} s")

    def stop(self) -> int:
        """End the worker and everything that it started; returns its exit status. Stopping twice is harmless."""
        if self._process.returncode is None:
            # Until the leader is reaped below, nobody else can have its number, nor its group's. What has left the
            # group is found in its tree.
            if not self._process.died():
                kin.end(self._process.pid)
            # A nursery that is gone took its hold on the numbers of its dead with it.
            if self._nursery is None or not self._nursery.is_gone():
                # An empty group has nobody to kill; one of another user, which setuid made, may not be killed.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        code = self._process.wait()
        self._resources.close()
        return code

    def hang_up(self) -> None:
        """Close the socket, as this process's death would; the worker ends by itself."""
        self._channel.close()

    def _died(self) -> bool:
        """Whether the process is over; leaves it to be reaped, so that its group can still be ended."""
        return self._process.died()

    def _garbled(self, error: Garbled) -> WorkerLost:
        self.stop()
        return WorkerLost("failed", one_line(f"its process sent what is no reply: {error}"))

    def _lost(self) -> WorkerLost:
        """Why the worker is gone, told from its exit status; raises NurseryLost where that is not its own doing."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not (died := self._died()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._nursery is not None and self._nursery.is_gone():
            self.stop()
            raise NurseryLost
        last_words = self._last_words()
        code = self.stop()
        if not died:
            return WorkerLost("crashed", "it closed its socket and went on running")
        if code == -signal.SIGKILL:
            return WorkerLost("out_of_memory", "killed by SIGKILL, as the kernel does when memory runs out")
        if code < 0:
            return WorkerLost("crashed", f"died of {_signal_name(-code)}{last_words}")
        return WorkerLost("crashed", f"its process exited with code {code}{last_words}")

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _ERRORS_TAIL_BYTES))
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        telling = [line for line in lines if line and not line.startswith(_ADVICE) and not _is_log(line)]
        return f": {one_line(telling[-1])[:200]}" if telling else ""


def _is_log(line: str) -> bool:
    """Whether a line is the profiler's own."""
    return line.startswith(_LOG_PREFIXES) and (_PROFILER in line.lower() or "profiler" in line.lower())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    # Real-time signals have no names.
    except ValueError:
        return f"signal {number}"

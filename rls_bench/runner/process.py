"""The coordinator's end of one worker process: start it, ask it, and tell why it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress

from rls_bench.records.record import Status
from rls_bench.runner import messages
from rls_bench.runner.messages import Channel, Closed
from rls_bench.runner.nursery import Forked, Nursery

# GNU OpenMP's threads spin for some 10 ms after a call, into the next worker's turn. A tenth of its default count ends
# that within 1 ms and leaves calls as fast as they were; OMP_WAIT_POLICY=passive would slow small ones by two fifths.
_OPENMP = {"GOMP_SPINCOUNT": "30000"}
# How often a waiting coordinator looks whether the worker still lives; a pipe held open by a stray child hides that.
_LOOK_SECONDS = 0.25
_ERRORS_TAIL_BYTES = 2000
# What torch writes below a CUDA error, whatever the error was.
_ADVICE = ("Search for `", "CUDA kernel errors might be", "For debugging consider", "Compile with `TORCH_USE_CUDA_DSA`")
# How long a worker whose pipe has closed may take to die.
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


class _Started(subprocess.Popen[bytes]):
    """A worker process started from nothing."""

    def __init__(self, backend: str, passed: tuple[int, ...], printed: int, errors: int) -> None:
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
    prints goes to temporary files, and the last line of its errors explains a death. ``shared`` is an open file in
    which workers keep the current problem's inputs (``rls_bench.runner.shared``). With a ``nursery`` it is forked
    there, else started from nothing.
    """

    def __init__(self, backend: str, shared: int, nursery: Nursery | None = None) -> None:
        self.backend = backend
        self._resources = ExitStack()
        printed = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._errors = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        requests_in, requests_out = os.pipe()
        replies_in, replies_out = os.pipe()
        outputs = printed.fileno(), self._errors.fileno()
        self._process: _Started | Forked
        try:
            if nursery is None:
                raise ConnectionError("no nursery")
            self._process = nursery.fork(backend, requests_in, replies_out, *outputs)
        except OSError:
            self._process = _Started(backend, (requests_in, replies_out, shared), *outputs)
        os.close(requests_in)
        os.close(replies_out)
        self._channel = Channel(replies_in, requests_out, messages.Reply)
        self._resources.callback(self._channel.close)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def ask(self, request: messages.Request, timeout_seconds: float) -> messages.Reply:
        """Send ``request`` and wait for its reply; raises WorkerLost, with the worker ended, where none comes."""
        self.tell(request)
        return self.reply(timeout_seconds)

    def tell(self, request: messages.Request) -> None:
        """Send ``request`` and don't wait; raises WorkerLost."""
        try:
            self._channel.send(request)
        except Closed:
            raise self._lost() from None

    def reply(self, timeout_seconds: float) -> messages.Reply:
        """Wait for the reply to what was told; raises WorkerLost."""
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            died = self._died()
            try:
                # A worker that died may have answered first.
                found = self._channel.receive(0.0 if died else min(left, _LOOK_SECONDS))
            except Closed:
                raise self._lost() from None
            except ValueError as error:
                self.stop()
                raise WorkerLost("failed", f"its process sent what is no reply: {error}") from error
            if found is not None:
                return found  # type: ignore[return-value]
            if died:
                raise self._lost()
        self.stop()
        raise WorkerLost("timeout", f"no answer within {timeout_seconds:g} s")

    def stop(self) -> int:
        """End the worker and everything that it started; returns its exit status. Stopping twice is harmless."""
        if self._process.returncode is None:
            # Until the leader is reaped below, nobody else can have its group's id. It makes the group itself, so
            # one that has only just started has none.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        code = self._process.wait()
        self._resources.close()
        return code

    def hang_up(self) -> None:
        """Close the pipe, as this process's death would; the worker ends by itself."""
        self._channel.close()

    def _died(self) -> bool:
        """Whether the process is over; leaves it to be reaped, so that its group can still be ended."""
        return self._process.died()

    def _lost(self) -> WorkerLost:
        """Why the worker is gone, told from its exit status."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not (died := self._died()) and time.monotonic() < deadline:
            time.sleep(0.01)
        last_words = self._last_words()
        code = self.stop()
        if not died:
            return WorkerLost("crashed", "it closed its pipe and went on running")
        if code == -signal.SIGKILL:
            return WorkerLost("out_of_memory", "killed by SIGKILL, as the kernel does when memory runs out")
        if code < 0:
            return WorkerLost("crashed", f"died of {signal.Signals(-code).name}{last_words}")
        return WorkerLost("crashed", f"its process exited with code {code}{last_words}")

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _ERRORS_TAIL_BYTES))
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        telling = [line for line in lines if line and not line.startswith(_ADVICE)]
        return f": {telling[-1][:200]}" if telling else ""

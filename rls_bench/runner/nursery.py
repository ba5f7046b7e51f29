"""One launch's fresh process that has imported torch and nothing else has happened in; its workers are forked from it.

Importing torch takes seconds of CPU time, which a dozen workers a launch would each spend anew. The nursery draws no
tensor, loads no backend, touches no GPU and starts no thread (numpy's OpenBLAS has its own, and knows of forks), so
that a fork of it is as good as a process that has just imported torch. Each launch has a nursery of its own, with
memory laid out anew. Where workers must start from nothing, as on CUDA, it imports nothing and each fork starts over.

It is the parent that a backend can reach. Polite signals don't end it; where a harder one does, or stops it, the
coordinator notices. It takes in whatever a dead worker leaves behind.

Started as ``python -m rls_bench.runner.nursery CONTROL IMPORTS``: the number of an inherited socket, and 1 or 0.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from rls_bench.runner import kin, worker

_MOST_BYTES = 4096
_LOOK_SECONDS = 0.25
# A worker that was killed is reaped at once, unless a driver holds on to it.
_REAP_SECONDS = 30.0
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


class Nursery:
    """The coordinator's end. Workers forked here die with the nursery, and the nursery with the coordinator."""

    def __init__(
        self, environment: dict[str, str], imports: bool = True, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """``imports``: import torch once, and have workers begin with it. ``waiting`` is called several times a second
        while a fork is waited for; what it raises ends the wait, and the nursery."""
        self._waiting = waiting
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rls_bench.runner.nursery", str(theirs.fileno()), str(int(imports))],
                stdin=subprocess.DEVNULL,
                # Where it fails, workers are started from nothing, and tell why.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )

    @property
    def pid(self) -> int:
        """The process that workers are forked from."""
        return self._process.pid

    def fork(self, backend: str, descriptors: Sequence[int]) -> Forked:
        """A worker for ``backend`` on its channel, tray, output and errors; raises OSError where nobody forks it."""
        socket.send_fds(self._socket, [json.dumps(["fork", backend]).encode()], list(descriptors))
        try:
            return Forked(self, int(self._answer(self._waiting)))
        except BaseException:
            # Its answer would be taken for that to the next question.
            self._fell()
            raise

    def reap(self, pid: int) -> int:
        """Wait for a worker's end; its exit status as subprocess gives it, -SIGKILL where the nursery is gone."""
        try:
            self._socket.send(json.dumps(["reap", pid]).encode())
            return int(self._answer(_patience(_REAP_SECONDS)))
        except OSError:
            self._fell()
            return -signal.SIGKILL

    def is_gone(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    def resume(self) -> bool:
        """Have the process go on where something stopped it; whether that was so."""
        if kin.state(self.pid) not in ("T", "t"):
            return False
        # It may have died since it was looked at; who waits for it sees that.
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        return True

    def sweep(self, workers: Collection[int]) -> None:
        """End whatever dead workers left behind: the nursery's children that are none of ``workers``."""
        for child in kin.children(self.pid):
            if child not in workers:
                kin.end(child)

    def stop(self) -> None:
        """End the nursery and every worker left of it, with all that they started."""
        self._fell()
        self._process.wait()
        self._socket.close()

    def _fell(self) -> None:
        """End it where it still lives, for only then is its number its own."""
        if not self.is_gone():
            kin.end(self.pid)

    def _answer(self, waiting: Callable[[], None]) -> bytes:
        while not select.select([self._socket], [], [], _LOOK_SECONDS)[0]:
            waiting()
            if self.is_gone():
                raise ConnectionError("the process that forks workers is gone")
            self.resume()
        answer = self._socket.recv(_MOST_BYTES)
        if not answer:
            raise ConnectionError("the process that forks workers is gone")
        return answer


def _patience(seconds: float) -> Callable[[], None]:
    """Raises TimeoutError where it is called later than ``seconds`` from now."""
    deadline = time.monotonic() + seconds

    def waiting() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer within {seconds:g} s")

    return waiting


class Forked:
    """A worker process that is the nursery's child, with what is needed of ``subprocess.Popen``."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        # Until it is reaped nobody else can have its id, so this is the worker even where it has died already.
        self._pidfd = os.pidfd_open(pid)

    def died(self) -> bool:
        """Whether the process is over; it stays to be reaped."""
        return self.returncode is not None or bool(select.select([self._pidfd], [], [], 0)[0])

    def kill(self) -> None:
        """End it, and not what it started."""
        if self.returncode is None:
            # Dead already, which is what was wanted.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status, once it is over."""
        if self.returncode is None:
            self.returncode = self._nursery.reap(self.pid)
            os.close(self._pidfd)
        return self.returncode


def available() -> bool:
    """Whether this system has what a nursery takes."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def main(control: socket.socket, imports: bool) -> None:
    """Fork and reap on request until the coordinator is gone."""
    os.set_inheritable(control.fileno(), False)
    # Ctrl-C is the coordinator's alone.
    os.setpgid(0, 0)
    kin.die_with_parent()
    kin.adopt_orphans()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _POLITE}
    if imports:
        import rls_bench.runner.workbench  # noqa: F401

        # What has been imported stays, and is shared with the forks as long as no collection touches it.
        gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _MOST_BYTES, 4)
        if not request:
            return
        verb, what = json.loads(request)
        if verb == "reap":
            control.send(str(_reaped(what)).encode())
            continue
        if (pid := os.fork()) == 0:
            control.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            _become_worker(what, descriptors, imports)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(str(pid).encode())


def _reaped(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # Nobody of that number is ours any more.
    except ChildProcessError:
        return -signal.SIGKILL


def _become_worker(backend: str, descriptors: list[int], imports: bool) -> None:
    channel, tray, printed, errors = descriptors
    try:
        os.dup2(printed, 1)
        os.dup2(errors, 2)
        os.close(printed)
        os.close(errors)
        if not imports:
            worker.start_over(backend, channel, tray, {})
        worker.main(backend, channel, tray)
    finally:
        # Whatever happened in the worker, it must not go on as a nursery.
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2] == "1")

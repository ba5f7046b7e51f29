"""One launch's fresh process that has imported torch and nothing else has happened in; its workers are forked from it.

Importing torch takes seconds of CPU time, which a dozen workers a launch would each spend anew. The nursery draws no
tensor, loads no backend, touches no GPU and starts no thread (numpy's OpenBLAS has its own, and knows of forks), so
that a fork of it is as good as a process that has just imported torch. Each launch has a nursery of its own, with
memory laid out anew.

Started as ``python -m rls_bench.runner.nursery CONTROL SHARED``, numbers of an inherited socket and of the shared file.
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
from collections.abc import Sequence
from contextlib import suppress

from rls_bench.runner import worker

_MOST_BYTES = 4096


class Nursery:
    """The coordinator's end. Workers forked here die with the nursery, and the nursery with the coordinator."""

    def __init__(self, shared: int, environment: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rls_bench.runner.nursery", str(theirs.fileno()), str(shared)],
                stdin=subprocess.DEVNULL,
                # Where it fails, workers are started from nothing, and tell why.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), shared),
                env=environment,
            )

    def fork(self, backend: str, incoming: int, outgoing: int, printed: int, errors: int) -> Forked:
        """A worker for ``backend`` on these descriptors; raises OSError where the nursery is gone."""
        socket.send_fds(self._socket, [json.dumps(["fork", backend]).encode()], [incoming, outgoing, printed, errors])
        return Forked(self, int(self._answer()))

    def reap(self, pid: int) -> int:
        """Wait for a worker's end; its exit status as subprocess gives it, -SIGKILL where the nursery is gone."""
        try:
            self._socket.send(json.dumps(["reap", pid]).encode())
            return int(self._answer())
        except OSError:
            return -signal.SIGKILL

    def stop(self) -> None:
        """End the nursery and every worker left of it."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _answer(self) -> bytes:
        answer = self._socket.recv(_MOST_BYTES)
        if not answer:
            raise ConnectionError("the process that forks workers is gone")
        return answer


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


def main(arguments: Sequence[str]) -> None:
    """Fork and reap on request until the coordinator is gone."""
    control, shared = socket.socket(fileno=int(arguments[0])), int(arguments[1])
    os.set_inheritable(control.fileno(), False)
    # Ctrl-C is the coordinator's alone.
    os.setpgid(0, 0)
    worker.die_with_parent()
    import rls_bench.runner.shared
    import rls_bench.runner.workbench  # noqa: F401

    # What has been imported stays, and is shared with the forks as long as no collection touches it.
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _MOST_BYTES, 4)
        if not request:
            return
        verb, what = json.loads(request)
        if verb == "reap":
            _, status = os.waitpid(what, 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        if (pid := os.fork()) == 0:
            control.close()
            incoming, outgoing, printed, errors = descriptors
            os.dup2(printed, 1)
            os.dup2(errors, 2)
            os.close(printed)
            os.close(errors)
            try:
                worker.main([what, str(incoming), str(outgoing), str(shared)])
            finally:
                # Whatever happened in the worker, it must not go on as a nursery.
                sys.stderr.flush()
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(str(pid).encode())


if __name__ == "__main__":
    main(sys.argv[1:])

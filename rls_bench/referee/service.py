"""The referee's process: draws inputs, knows what is right, judges what others computed. No backend is loaded here.

Started as ``python -m rls_bench.referee.service SOCKET``, the number of an inherited descriptor.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import torch

from rls_bench.machines import host, vector_math
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement
from rls_bench.referee import pool
from rls_bench.referee.judge import Judge, failed
from rls_bench.referee.messages import Describe, Described, Draw, Drawn, DrawUnseen, Failed, Judged, Reply, Request
from rls_bench.referee.pool import Pool
from rls_bench.referee.results import forward_bytes, slot_bytes, taken
from rls_bench.referee.wire import Channel, Closed

# Draws and their truths are kept for later launches, up to this.
_MOST_BYTES = 512 << 20
# Each holds some eight descriptors, for what is mapped holds one of its own; a process may have a thousand.
_MOST_JUDGES = 64


class Service:
    """Answers requests; what is no longer kept is drawn again, to the same figures."""

    def __init__(self) -> None:
        self._judges: dict[Draw, tuple[int, Judge]] = {}

    def answer(self, request: Request, descriptors: list[int]) -> tuple[Reply, list[int]]:
        """The reply, and the descriptors that go with it."""
        if isinstance(request, Describe):
            return Described(host.current()), []
        if isinstance(request, Draw):
            memory, judge = self._judge(request)
            return Drawn(judge.pool.layout), [memory]
        if isinstance(request, DrawUnseen):
            memory, queries = self._judge(request.draw)[1].unseen(request.salt)
            return Drawn(queries.layout), [memory]
        judge = self._judge(request.draw)[1]
        try:
            if request.repeats is not None:
                return Judged(_repeated(descriptors[0], judge.pool.problem, request.repeats, request.slot)), []
            result = taken(descriptors[0], judge.pool.problem, request.slot)
        except (OSError, ValueError, IndexError) as error:
            return Judged(failed(f"handed over no result: {error}")), []
        return Judged(judge.judge(result, request.contents, request.steers, request.unseen)), []

    def look_ahead(self, request: Request) -> None:
        """Work out what will be asked next, while workers prepare."""
        # Many small products: on one thread, for the other cores are the workers' meanwhile.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if isinstance(request, Draw):
                self._judge(request)[1].look()
        finally:
            torch.set_num_threads(threads)

    def _judge(self, request: Draw) -> tuple[int, Judge]:
        if request not in self._judges:
            memory, layout = pool.fill(request.problem, request.salt, request.excerpt)
            self._judges[request] = memory, Judge(Pool(memory, layout), request.salt)
            self._make_room()
        # The one asked for last is the last to go.
        self._judges[request] = self._judges.pop(request)
        return self._judges[request]

    def _make_room(self) -> None:
        while len(self._judges) > 2 and (
            len(self._judges) > _MOST_JUDGES or sum(judge.size for _, judge in self._judges.values()) > _MOST_BYTES
        ):
            memory, judge = self._judges.pop(next(iter(self._judges)))
            os.close(memory)
            judge.close()


def _repeated(tray: int, problem: Problem, earlier: int, later: int) -> Agreement:
    """Whether two results are the same bits; the earlier one is judged by what it is.

    Not their gradients: good kernels add those up in whatever order blocks end.
    """
    one, other = (os.pread(tray, forward_bytes(problem), slot * slot_bytes(problem)) for slot in (earlier, later))
    if one == other:
        return Agreement(None, None, None, passed=True)
    return failed("gave another result the second time")


def main(descriptor: int) -> None:
    """Serve until the other side is gone."""
    # Ctrl-C is the coordinator's alone, and no backend shall end its judge by a signal to its group.
    os.setpgid(0, 0)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor), Request, takes_descriptors=True)
    vector_math.settle()
    service = Service()
    # As others find it: how many threads torch would take is part of what a machine is.
    host.current()
    while True:
        try:
            letter = channel.receive()
            assert letter is not None
            try:
                reply, descriptors = service.answer(letter.message, letter.descriptors)
            except (MemoryError, RuntimeError, ValueError) as error:
                reply, descriptors = Failed(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]), []
            for each in letter.descriptors:
                os.close(each)
            channel.send(letter.serial, reply, descriptors)
            if not isinstance(reply, Failed):
                service.look_ahead(letter.message)
        except Closed:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))

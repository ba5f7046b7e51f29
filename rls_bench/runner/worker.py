"""The process that holds one backend: it prepares, checks and times on request, and waits on its pipe in between.

Forked from the launch's nursery (``rls_bench.runner.nursery``) or, where there is none or the backend wants variables
of its own, started as ``python -m rls_bench.runner.worker BACKEND INCOMING OUTGOING SHARED``; the last three are
numbers of inherited descriptors. Whatever goes wrong in the backend becomes a reply where that is possible; the
coordinator reads the rest off the process's death.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from rls_bench.runner import messages
from rls_bench.runner.messages import Channel, Closed

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Serve one backend until the coordinator closes the pipe."""
    name, (incoming, outgoing, shared) = arguments[0], map(int, arguments[1:])
    # A group of its own, so that Ctrl-C reaches the coordinator alone and the group can be ended as one. Not a session:
    # Linux would schedule each session alike, whatever the user's nice says.
    os.setpgid(0, 0)
    die_with_parent()
    _become_first_victim()
    _enter_environment(name, arguments, (incoming, outgoing, shared))
    channel = Channel(incoming, outgoing, messages.Request)
    for descriptor in (incoming, outgoing, shared):
        os.set_inheritable(descriptor, False)
    # A forked child must neither hear nor answer the coordinator.
    os.register_at_fork(after_in_child=channel.close)

    from rls_bench.runner.shared import SharedInputs
    from rls_bench.runner.workbench import Workbench

    workbench = Workbench(name, SharedInputs(shared))
    try:
        while True:
            request = channel.receive()
            channel.send(workbench.answer(request))
    except Closed:
        # Not sys.exit: a thread that the backend left behind could keep the process alive.
        os._exit(0)


def _enter_environment(name: str, arguments: list[str], descriptors: tuple[int, ...]) -> None:
    """Start over with the backend's variables, which must be set before torch or triton load."""
    from rls_bench.backends import registry
    from rls_bench.errors import BackendError

    try:
        wanted = dict(registry.get(name).environment())
    except BackendError:
        # The introduction will tell.
        return
    if all(os.environ.get(variable) == value for variable, value in wanted.items()):
        return
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    os.execve(sys.executable, [sys.executable, "-m", "rls_bench.runner.worker", *arguments], {**os.environ, **wanted})


def die_with_parent() -> None:
    """Have the kernel kill this process once the coordinator is gone, even in the middle of a call that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_first_victim() -> None:
    """Have the kernel's out-of-memory killer choose this process rather than the coordinator or the user's shell."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])

"""The process that holds one backend: it prepares, checks and times on request, and waits on its pipe in between.

Started as ``python -m rls_bench.runner.worker BACKEND INCOMING OUTGOING`` by the coordinator; the numbers are inherited
descriptors. Whatever goes wrong in the backend becomes a reply where that is possible; the coordinator reads the rest
off the process's death.
"""

from __future__ import annotations

import os
import sys

from rls_bench.runner import messages
from rls_bench.runner.messages import Channel, Closed


def main(arguments: list[str]) -> None:
    """Serve one backend until the coordinator closes the pipe."""
    name, incoming, outgoing = arguments[0], int(arguments[1]), int(arguments[2])
    _become_first_victim()
    _enter_environment(name)
    channel = Channel(incoming, outgoing, messages.Request)
    os.set_inheritable(incoming, False)
    os.set_inheritable(outgoing, False)
    # A forked child must neither hear nor answer the coordinator.
    os.register_at_fork(after_in_child=channel.close)

    from rls_bench.runner.workbench import Workbench

    workbench = Workbench(name)
    try:
        while True:
            request = channel.receive()
            channel.send(workbench.answer(request))
    except Closed:
        # Not sys.exit: a thread that the backend left behind could keep the process alive.
        os._exit(0)


def _enter_environment(name: str) -> None:
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
    os.execve(
        sys.executable, [sys.executable, "-m", "rls_bench.runner.worker", *sys.argv[1:]], {**os.environ, **wanted}
    )


def _become_first_victim() -> None:
    """Have the kernel's out-of-memory killer choose this process rather than the coordinator or the user's shell."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])

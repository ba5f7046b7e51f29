"""The process that holds one backend: it prepares, checks and times on request, and waits on its socket in between.

Forked from the launch's nursery (``rls_bench.runner.nursery``) or, where there is none or the backend wants variables
of its own, started as ``python -m rls_bench.runner.worker BACKEND CHANNEL TRAY [entered]``; the numbers are inherited
descriptors. Whatever goes wrong in the backend becomes a reply where that is possible; the coordinator reads the rest
off the process's death.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from rls_bench.backends.words import told
from rls_bench.referee.wire import Channel, Closed, Garbled
from rls_bench.runner import kin, messages

# Says that the backend's variables are set, so that it isn't asked for them again.
_ENTERED = "entered"


def main(name: str, channel: int, tray: int, entered: bool = False) -> None:
    """Serve one backend until the coordinator closes its end."""
    # A group of its own, so that Ctrl-C reaches the coordinator alone and the group can be ended as one. Not a session:
    # Linux would schedule each session alike, whatever the user's nice says.
    os.setpgid(0, 0)
    kin.die_with_parent()
    kin.adopt_orphans()
    _become_first_victim()
    fault = "" if entered else _enter_environment(name, channel, tray)
    for descriptor in (channel, tray):
        os.set_inheritable(descriptor, False)
    end = Channel(socket.socket(fileno=channel), messages.Request, takes_descriptors=True)
    # A forked child must neither hear nor answer the coordinator.
    os.register_at_fork(after_in_child=end.close)

    from rls_bench.runner.workbench import Workbench

    workbench = Workbench(name, tray, fault)
    try:
        while True:
            letter = end.receive()
            assert letter is not None
            end.send(letter.serial, workbench.answer(letter.message, letter.descriptors))
    except (Closed, Garbled):
        # Not sys.exit: a thread that the backend left behind could keep the process alive.
        os._exit(0)


def start_over(name: str, channel: int, tray: int, variables: Mapping[str, str], *words: str) -> None:
    """Go on as a process of the same number that has imported nothing, with more environment variables."""
    for descriptor in (channel, tray):
        os.set_inheritable(descriptor, True)
    command = [sys.executable, "-m", "rls_bench.runner.worker", name, str(channel), str(tray), *words]
    os.execve(sys.executable, command, {**os.environ, **variables})


def _enter_environment(name: str, channel: int, tray: int) -> str:
    """Start over with the backend's variables, which must be set before torch or triton load.

    It is asked for them once. Returns why it could not say them, or an empty string.
    """
    from rls_bench.backends import registry
    from rls_bench.errors import BackendError

    try:
        wanted = dict(registry.get(name).environment())
        if not all(isinstance(word, str) for pair in wanted.items() for word in pair):
            raise TypeError(f"wanted text alone; got {wanted!r}")
    except BackendError:
        # The introduction will tell.
        return ""
    # Whatever a plugin raises, SystemExit too, is told; where it did not load, the introduction tells.
    except BaseException as error:
        return f"environment(): {told(error)}" if registry.LOADED.get(name) is not None else ""
    if any(os.environ.get(variable) != value for variable, value in wanted.items()):
        try:
            start_over(name, channel, tray, wanted, _ENTERED)
        except (OSError, ValueError) as error:
            return f"environment(): {told(error)}"
    return ""


def _become_first_victim() -> None:
    """Have the kernel's out-of-memory killer choose this process rather than the coordinator or the user's shell."""
    # A sandbox without /proc, or one that may not write there, only loses this precaution.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), entered=_ENTERED in sys.argv[4:])

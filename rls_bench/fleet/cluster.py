"""Ray as the engine of a fleet: nodes, devices that are held by actors, and their answers.

The one module that knows Ray, and it imports it only when a fleet starts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rls_bench.errors import MissingPackage, RlsBenchError
from rls_bench.fleet import agent
from rls_bench.fleet.driver import Answer
from rls_bench.fleet.kinds import Node, Slot
from rls_bench.fleet.words import Lost

# Records are small; the least that Ray takes is 75 MiB.
_STORE_BYTES = 80 << 20
# A device that answers nothing for so long is held by somebody else, or its node cannot start a process.
_START_SECONDS = 180.0
_NAMES_SECONDS = 60.0


@contextlib.contextmanager
def connected(
    address: str = "", *, command: Sequence[str] = (), deadline_seconds: float = 3600.0
) -> Iterator[RayCluster]:
    """Join the cluster at ``address`` (``auto`` finds this machine's), or start Ray on this machine alone.

    ``command`` measures a plan on a node, the runner by default. Raises MissingPackage without Ray, RlsBenchError
    where there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("a fleet needs Ray: pip install 'rls-bench[fleet]'") from error
    own: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    # Ray prints the last forty lines of a lost node's log there; the ledger says it in one.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise RlsBenchError(f"--address {address or 'local'}: Ray cannot be reached: {error}") from error
        try:
            yield RayCluster(ray, command, deadline_seconds)
        finally:
            ray.shutdown()


class RayCluster:
    """A cluster that this process has joined."""

    def __init__(self, ray: Any, command: Sequence[str], deadline_seconds: float) -> None:
        self._ray = ray
        self._agent = ray.remote(agent.Agent)
        self._arguments = (tuple(command), deadline_seconds)
        self._actors: dict[int, Any] = {}
        # The call that each device has still to answer, and when it was to have, where that is known.
        self._calls: dict[Any, int] = {}
        self._deadlines: dict[int, float] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._count = 0

    def nodes(self) -> list[Node]:
        """The nodes that live; a node without a tag is asked once for its devices' names."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        self._ask_names(
            [node["NodeID"] for node in alive if not _is_tagged(node) and node["NodeID"] not in self._names]
        )
        return [
            Node(
                node["NodeID"],
                node["Labels"].get("machine") or node["NodeManagerHostname"],
                node["Resources"],
                node["Labels"],
                self._names.get(node["NodeID"], ()),
            )
            for node in alive
        ]

    def start(self, slot: Slot) -> int:
        """Take hold of a device for as long as the fleet wants it."""
        self._count += 1
        demand = dict(slot.demand)
        actor = self._agent.options(
            num_cpus=demand.pop("CPU", 0),
            num_gpus=demand.pop("GPU", 0),
            resources=demand,
            max_restarts=0,
            scheduling_strategy=self._on(slot.node),
        ).remote(slot.is_cpu, *self._arguments)
        self._actors[self._count] = actor
        self._calls[actor.hello.remote()] = self._count
        self._deadlines[self._count] = time.monotonic() + _START_SECONDS
        return self._count

    def ask(self, device: int, plan: bytes) -> None:
        """Have a device carry out a plan."""
        self._calls[self._actors[device].measure.remote(plan)] = device

    def answers(self, timeout_seconds: float) -> list[tuple[int, Answer]]:
        """What has come in; waits for the first answer."""
        if not self._calls:
            time.sleep(timeout_seconds)
            return []
        ready, _ = self._ray.wait([*self._calls], num_returns=1, timeout=timeout_seconds)
        found = [(self._calls.pop(call), self._answer(call)) for call in ready]
        for device, _ in found:
            self._deadlines.pop(device, None)
        late = [device for device, deadline in self._deadlines.items() if time.monotonic() > deadline]
        for device in late:
            del self._deadlines[device]
            found.append((device, Lost(f"no answer within {_START_SECONDS:g} s; does another fleet hold the device?")))
        return found

    def stop(self, device: int) -> None:
        """Let go of a device, and end what it does."""
        self._calls = {call: other for call, other in self._calls.items() if other != device}
        self._deadlines.pop(device, None)
        self._ray.kill(self._actors.pop(device))

    def _answer(self, call: Any) -> Answer:
        try:
            answer: Answer = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return Lost(str(error.cause).strip().splitlines()[-1])
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Lost(f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"[:400])
        return answer

    def _ask_names(self, nodes: Sequence[str]) -> None:
        ask = self._ray.remote(agent.names)
        calls = {node: ask.options(num_cpus=0, scheduling_strategy=self._on(node)).remote() for node in nodes}
        for node, call in calls.items():
            try:
                self._names[node] = self._ray.get(call, timeout=_NAMES_SECONDS)
            except self._ray.exceptions.RayError:
                # Where it cannot answer, nothing runs there either.
                self._names[node] = ()

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)


def _is_tagged(node: dict[str, Any]) -> bool:
    """Whether somebody said of what kind the node is, or it has no device at all."""
    words = [*node["Resources"]]
    named = any(word.startswith(("gpu:", "cpu:")) for word in words) or {"gpu", "cpu"} & node["Labels"].keys()
    return bool(named) or not {"CPU", "GPU"} & {*words}

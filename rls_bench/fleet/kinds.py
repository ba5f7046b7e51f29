"""Which node of a cluster has which kind of device: by resource, by label, or by the name that the driver tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Ray's own label for what it finds in a node.
_RAY_LABEL = "ray.io/accelerator-type"
# Any processor will do.
CPU = "cpu"


@dataclass(frozen=True)
class Node:
    """A living node: what Ray calls it, its machine's name, its resources and labels, and its devices' names."""

    id: str
    machine: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slot:
    """One device of a kind: the ``number``-th of its node; ``demand`` is what holding it takes, by Ray's names."""

    kind: str
    node: str
    machine: str
    number: int
    demand: tuple[tuple[str, float], ...]

    @property
    def is_cpu(self) -> bool:
        """Whether it is a processor; its tasks must see no GPU."""
        return all(name == "CPU" or name.startswith("cpu:") for name, _ in self.demand)


def slots(kind: str, nodes: Sequence[Node]) -> list[Slot]:
    """Every device of ``kind``, such as ``h100``, ``rtx-5090``, ``epyc`` or ``cpu``."""
    found = []
    for node in nodes:
        count, demand = _of_node(kind, node)
        found += [Slot(kind, node.id, node.machine, number, tuple(demand.items())) for number in range(1, count + 1)]
    return found


def _of_node(kind: str, node: Node) -> tuple[int, dict[str, float]]:
    """How many devices of ``kind`` the node has, and what one of them takes."""
    gpus, cores = int(node.resources.get("GPU", 0)), node.resources.get("CPU", 0)
    own_gpu = {"GPU": 1.0} if gpus else {}
    for prefix, beside in (("gpu", own_gpu), ("cpu", {})):
        if count := int(node.resources.get(f"{prefix}:{kind}", 0)):
            # Devices that Ray does not count it cannot keep apart: each task would take the first.
            return count if beside else 1, {f"{prefix}:{kind}": 1.0, **beside}
    whole = {"CPU": cores} if cores else {}
    if kind == CPU or node.labels.get("cpu", "").lower() == kind:
        return int(bool(cores)), whole
    labels = {node.labels.get("gpu", "").lower(), node.labels.get(_RAY_LABEL, "").lower()}
    if kind in labels or any(name.lower() == f"accelerator_type:{kind}" for name in node.resources):
        return gpus, own_gpu
    matching = [name for name in node.devices if _words(kind) <= _words(name)]
    # A node's devices are its processor, then its GPUs.
    if matching and matching[0] == node.devices[0]:
        return int(bool(cores)), whole
    # Which of unlike GPUs Ray hands out cannot be said.
    return (gpus, own_gpu) if len(matching) == len(node.devices) - 1 else (0, {})


def offered(nodes: Sequence[Node]) -> str:
    """What there is, in words, for an error that says what there isn't."""
    words = set()
    for node in nodes:
        words |= {name for name in node.resources if name.startswith(("gpu:", "cpu:", "accelerator_type:"))}
        words |= {f"{key}={value}" for key, value in node.labels.items() if key in ("gpu", "cpu", _RAY_LABEL)}
        words |= set(node.devices) | ({CPU} if node.resources.get("CPU") else set())
    return ", ".join(sorted(words)) or "no device"


def _words(name: str) -> set[str]:
    """``NVIDIA H100 80GB HBM3`` as its words in small letters."""
    return set(re.findall(r"[a-z0-9]+", name.lower()))

"""Which of the machine's GPUs CUDA counts as its first, second, …: NVML counts them all, and in another order.

CUDA's own rules for CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER (CUDA C++ Programming Guide, environment variables).
Where torch has a device open, its UUID says the same and needs no rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rls_bench.errors import DriverError


def selected(index: int, environment: Mapping[str, str], names: Sequence[str]) -> int | str:
    """The GPU that CUDA calls ``index``: NVML's index, or the UUID or the start of one as it was given.

    ``names`` are those of all GPUs in NVML's order; empty where NVML doesn't tell. Raises DriverError where CUDA sees
    no such GPU, or where only CUDA itself knows its order.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    entries = [str(number) for number in range(len(names) or index + 1)] if listed is None else _valid(listed, names)
    if index >= len(entries):
        said = "" if listed is None else f" in CUDA_VISIBLE_DEVICES={listed!r}"
        raise DriverError(f"CUDA sees {len(entries)} GPUs{said}; wanted number {index}")
    entry = entries[index]
    if not _is_number(entry):
        return entry
    # By default CUDA counts the fastest first, as it judges; NVML counts by PCI bus.
    if len(set(names)) > 1 and environment.get("CUDA_DEVICE_ORDER", "") != "PCI_BUS_ID":
        raise DriverError(
            f"which of {', '.join(names)} CUDA calls {entry} is CUDA's own choice; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPU by its UUID in CUDA_VISIBLE_DEVICES"
        )
    return int(entry)


def _valid(listed: str, names: Sequence[str]) -> list[str]:
    """The entries that CUDA takes: all ahead of the first that is none, and none at all where one is there twice."""
    taken: list[str] = []
    for entry in (word.strip() for word in listed.split(",")):
        if not _names_a_gpu(entry, len(names)):
            break
        taken.append(entry)
    return taken if len(set(taken)) == len(taken) else []


def _names_a_gpu(entry: str, count: int) -> bool:
    if _is_number(entry):
        return not count or int(entry) < count
    return entry.startswith(("GPU-", "MIG-"))


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()

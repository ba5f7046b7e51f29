"""Which node has which kind: a tag beats a label, a label what the driver calls its GPUs."""

from __future__ import annotations

import pytest

from rls_bench.fleet.kinds import Node, offered, slots

EPYC, H100 = "AMD EPYC 9654 96-Core Processor", "NVIDIA H100 80GB HBM3"


def node(resources: dict[str, float], labels: dict[str, str] | None = None, devices: tuple[str, ...] = ()) -> Node:
    return Node("id", "a", resources, labels or {}, devices)


@pytest.mark.parametrize(
    ("kind", "resources", "labels", "devices", "count", "demand"),
    [
        ("h100", {"gpu:h100": 2, "CPU": 8}, {}, (), 1, {"gpu:h100": 1}),
        ("h100", {"gpu:h100": 2, "GPU": 2}, {}, (), 2, {"gpu:h100": 1, "GPU": 1}),
        ("h100", {"GPU": 8}, {"gpu": "H100"}, (), 8, {"GPU": 1}),
        ("h100", {"GPU": 8, "accelerator_type:H100": 1}, {}, (), 8, {"GPU": 1}),
        ("h100", {"GPU": 2, "CPU": 8}, {}, (EPYC, H100, H100), 2, {"GPU": 1}),
        ("rtx-5090", {"GPU": 1}, {}, (EPYC, "NVIDIA GeForce RTX 5090"), 1, {"GPU": 1}),
        ("epyc", {"GPU": 1, "CPU": 8}, {}, (EPYC, H100), 1, {"CPU": 8}),
        ("graviton", {"cpu:graviton": 1, "CPU": 8}, {}, (), 1, {"cpu:graviton": 1}),
        ("cpu", {"CPU": 8}, {}, (EPYC,), 1, {"CPU": 8}),
        ("cpu", {"GPU": 1}, {}, (EPYC, H100), 0, {}),
        ("b200", {"gpu:h100": 1, "CPU": 8}, {}, (EPYC,), 0, {}),
        ("h10", {"GPU": 1}, {}, (EPYC, H100), 0, {}),
        # Which of them Ray would hand out cannot be said.
        ("h100", {"GPU": 2}, {}, (EPYC, H100, "NVIDIA L4"), 0, {}),
    ],
)
def test_a_kind_is_found(
    kind: str,
    resources: dict[str, float],
    labels: dict[str, str],
    devices: tuple[str, ...],
    count: int,
    demand: dict[str, float],
) -> None:
    found = slots(kind, [node(resources, labels, devices)])
    assert [slot.number for slot in found] == [*range(1, count + 1)]
    assert all(dict(slot.demand) == demand for slot in found)


def test_a_processor_is_told_from_a_gpu() -> None:
    both = node({"GPU": 1, "CPU": 8}, devices=(EPYC, H100))
    assert slots("cpu", [both])[0].is_cpu
    assert not slots("h100", [both])[0].is_cpu


def test_what_there_is_is_said() -> None:
    assert offered([node({"gpu:h100": 1, "CPU": 2}), node({"GPU": 1}, {"gpu": "b200"})]) == "cpu, gpu:h100, gpu=b200"
    assert offered([]) == "no device"

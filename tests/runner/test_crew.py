"""How long a launch's workers may take to come up, and which of them prepare side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.runner import Plan, crew, messages
from rls_bench.runner.cell import Cell
from rls_bench.runner.checks import Checks
from rls_bench.runner.limit import Limit

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random")


class FakeWorker:
    """Notes how long its answers may take."""

    patience: ClassVar[list[float]] = []

    pid = 0

    def __init__(self, *arguments: Any) -> None: ...

    def tell(self, request: messages.Request, descriptors: Any) -> None: ...

    def reply(self, timeout_seconds: float) -> messages.Introduction:
        self.patience.append(timeout_seconds)
        yes = messages.Verdict(True)
        return messages.Introduction(yes, yes, [yes, yes], to_build=[{"library": 2.0}, {}])

    def stop(self) -> None: ...


def test_importing_may_take_as_long_as_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "Worker", FakeWorker)
    with crew.Crew(60.0, 300.0, forks=False) as workers:
        workers.start("eager", "eager")
        workers.introduce(messages.Introduce([PROBLEM, PROBLEM]))
        # It is long in getting ready only where something is still to be built.
        assert [workers.takes_long("eager", index) for index in (0, 1)] == [True, False]
    assert FakeWorker.patience == [300.0]


@pytest.mark.parametrize(
    ("device", "probes", "beside"),
    [("cpu", (), True), ("cpu", ("roofline",), False), ("cuda", (), False), ("cuda", ("nvml",), False)],
)
def test_compilers_work_beside_others_only_where_nothing_is_measured(
    device: str, probes: tuple[str, ...], beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(1, 2, 2, 16, 24, 16, 16, device=device)
    plan = Plan([problem], ["eager", "flex", "keyfold"], probes=probes)
    cells = [Cell(name, name, 0, problem, ("warm",)) for name in plan.backends]
    log: list[str] = []

    class Logged(Checks):
        def _tell_to_prepare(self, cell: Cell) -> Any:
            log.append(f"tell {cell.label}")
            return object()

        def _prepared(self, cell: Cell, request: Any, beside: bool = False) -> int:
            log.append(f"done {cell.label}")
            return 1

    course, crew_ = (
        SimpleNamespace(plan=plan, limit=Limit()),
        SimpleNamespace(takes_long=lambda label, index: label == "flex", alone=False, unsteered=set()),
    )
    Logged(course, crew_, 1).prepare(cells)  # type: ignore[arg-type]
    together = ["tell flex", "tell eager", "done eager", "tell keyfold", "done keyfold", "done flex"]
    in_turn = ["tell eager", "done eager", "tell flex", "done flex", "tell keyfold", "done keyfold"]
    assert log == (together if beside else in_turn)

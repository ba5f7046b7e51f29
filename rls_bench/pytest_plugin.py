"""Pytest's way in: the cells of a suite through pytest-benchmark, and a check for backends of one's own.

Two fixtures. ``steered_cell`` is one backend on one problem, agreed with the oracle, ready for ``benchmark``::

    def test_cell(benchmark, steered_cell):
        benchmark(steered_cell)

Such tests run under ``--benchmark-only`` and are deselected otherwise, which the summary says; ``--steered-suite``,
``--steered-problem`` and ``--steered-backend`` choose the cells. ``steered_backend`` loads a backend and fails the test
unless it conforms::

    def test_my_kernel(steered_backend):
        backend = steered_backend("my_package.kernel:BACKEND")

All of it runs in pytest's own process: quick to use in CI, while ``rls-bench run`` is the instrument for verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rls_bench.backends.interface import Backend
    from rls_bench.problems.problem import Problem

    Cell = tuple[str, Problem]

_CELL = "steered_cell"
# How many tests of cells a session leaves out.
_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which cells the fixture ``steered_cell`` stands for."""
    group = parser.getgroup("rls_bench", "steered-attention backends")
    group.addoption(
        "--steered-backend",
        action="append",
        metavar="NAME",
        help="a registered backend or MODULE:ATTRIBUTE; repeat for several (default: every registered one)",
    )
    group.addoption("--steered-suite", metavar="NAME", help="suite of problems (default: the device's own)")
    group.addoption(
        "--steered-problem",
        action="append",
        metavar="WORDS",
        help='a problem in words, "B8 H32/8 Lq1 Lk4096 D128 bf16", rather than a suite; repeat for several',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a suite that nobody knows, and words that mean no problem, before anything is collected."""
    if words := config.getoption("--steered-problem"):
        from rls_bench.problems import grammar

        try:
            for each in words:
                grammar.parse(each)
        except ValueError as error:
            raise pytest.UsageError(f"--steered-problem: {error}") from None
    if suite := config.getoption("--steered-suite"):
        from rls_bench.problems import suites

        if suite not in suites.names():
            raise pytest.UsageError(f"--steered-suite: wanted one of {', '.join(suites.names())}; got {suite!r}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a cell, with an id that stays the same from run to run, as ``--benchmark-compare`` needs."""
    if _CELL in metafunc.fixturenames:
        cells = _cells(metafunc.config) if _benchmarking(metafunc.config) else []
        ids = [f"{problem.title} {backend}" for backend, problem in cells]
        metafunc.parametrize(_CELL, cells, ids=ids, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the cells out of a run that doesn't benchmark."""
    if _benchmarking(config):
        return
    cells = [item for item in items if _CELL in getattr(item, "fixturenames", ())]
    if cells:
        config.hook.pytest_deselected(items=cells)
        items[:] = [item for item in items if item not in cells]
        config.stash[_LEFT_OUT] = len(cells)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say of cells that were left out how they run: a count of deselected tests gives no reason."""
    if count := config.stash.get(_LEFT_OUT, 0):
        of_cells = "test of cells was" if count == 1 else "tests of cells were"
        terminalreporter.write_line(f"rls_bench: {count} {of_cells} left out; run: pytest --benchmark-only")


@pytest.fixture
def steered_cell(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """The call of one backend on one problem, after it agreed with the oracle; compiled and warm.

    Fails the test where it doesn't agree, skips it with the reason where the backend cannot run here.
    """
    backend_name, problem = request.param
    call, agreement = _agreed_call(backend_name, problem)
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = problem.title
    benchmark.extra_info.update(backend=backend_name, error=agreement.error, floor=agreement.floor)
    return call


@pytest.fixture
def steered_backend() -> Callable[[str], Backend]:
    """A function that loads the backend of a name or MODULE:ATTRIBUTE and fails the test unless it conforms."""
    return _conforming


def _benchmarking(config: pytest.Config) -> bool:
    return bool(config.getoption("benchmark_only", default=False))


def _cells(config: pytest.Config) -> list[Cell]:
    import torch

    from rls_bench.backends import registry
    from rls_bench.problems import grammar, suites

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if words := config.getoption("--steered-problem"):
        problems = [grammar.parse(each, device) for each in words]
    else:
        problems = suites.get(config.getoption("--steered-suite") or suites.default(device), device)
    backends = config.getoption("--steered-backend") or registry.names()
    return [(backend, problem) for problem in problems for backend in backends]


def _agreed_call(backend_name: str, problem: Problem) -> tuple[Callable[[], Any], Any]:
    import torch

    from rls_bench import agreement
    from rls_bench.agreement import conformance
    from rls_bench.backends import registry
    from rls_bench.problems.draw import draw
    from rls_bench.timing import training

    backend = registry.get(backend_name)
    for answer in (backend.available(), backend.measurable(), backend.supports(problem)):
        if not answer:
            pytest.skip(answer.reason)
    inputs = draw(problem)
    verdict = agreement.check(backend, inputs)
    if not verdict.passed:
        pytest.fail(f"{backend_name} on {problem.title}: {verdict.reason}", pytrace=False)
    if problem.requires_grad and (fault := conformance.wrong_gradient(backend, inputs)):
        pytest.fail(f"{backend_name} on {problem.title}: {fault}", pytrace=False)
    call = training.prepared(backend, inputs)
    call()
    if problem.device != "cuda":
        return call, verdict

    def finished() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return finished, verdict


def _conforming(name: str) -> Backend:
    from rls_bench.agreement import conformance
    from rls_bench.backends import registry

    backend = registry.get(name)
    if not (available := backend.available()):
        pytest.skip(available.reason)
    faults = [outcome for outcome in conformance.check(backend) if not outcome.holds]
    if faults:
        told = "\n".join(f"  {fault.case}: {fault.status}: {fault.reason}" for fault in faults)
        pytest.fail(f"{name} does not conform:\n{told}", pytrace=False)
    return backend

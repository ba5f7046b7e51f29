"""Real Ray with several nodes on this machine. Stand-ins measure, but for one test with the very runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fleet import on_ray

from rls_bench.errors import RlsBenchError
from rls_bench.fleet import ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[1]
CELLS = len(on_ray.PROBLEMS)
STORE_BYTES = 80 << 20


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes whoever imports from it believe in an older triton."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "triton-3.5.0.dist-info").mkdir()
    (folder / "triton-3.5.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: triton\nVersion: 3.5.0\n")
    return folder


class Nodes:
    """A cluster of nodes by name; one that was killed can be started anew."""

    def __init__(self, older: Path) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        self._cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self._older = older
        self._nodes: dict[str, Any] = {}
        self.address = self._cluster.address
        for name in ("a", "b", "slow", "old"):
            self.start(name)

    def start(self, name: str) -> None:
        kinds = {"a": ("h100", "b200"), "b": ("h100", "b200", "l4"), "slow": ("h100",), "old": ("h100", "l4")}
        path = os.pathsep.join([str(self._older)] * (name == "old") + [str(TESTS)])
        variables = {"PYTHONPATH": path, "STAND_IN_SCALE": "1.2" if name == "slow" else "1"}
        variables["STAND_IN_HOLD"] = str(self.hold(name))
        self._nodes[name] = self._cluster.add_node(
            num_cpus=1,
            resources={f"gpu:{kind}": 1 for kind in kinds[name]},
            labels={"machine": name},
            env_vars=variables,
            object_store_memory=STORE_BYTES,
            wait=False,
        )
        # However busy the machine is.
        self._cluster.wait_for_nodes(timeout=180)

    def hold(self, name: str) -> Path:
        """While this file is there, the node's tasks don't end."""
        return self._older / f"hold-{name}"

    def kill(self, name: str) -> None:
        """As a power cut would."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(older: Path) -> Iterator[Nodes]:
    found = Nodes(older)
    yield found
    found.close()


def cells(path: Path, kind: str) -> list[str]:
    """The work of every cell's file of ``kind``."""
    return sorted(file.name.split(".")[2] for file in (path / "cells").glob(f"{kind}.*.jsonl"))


def test_a_kind_that_nobody_has_is_named_at_once(nodes: Nodes, tmp_path: Path) -> None:
    with pytest.raises(RlsBenchError, match=r"nobody here has mi300; there is cpu, gpu:b200, gpu:h100, gpu:l4"):
        on_ray.run(nodes.address, tmp_path, ("h100", "mi300"))


def test_each_on_its_kind_and_each_oddity_by_its_name(nodes: Nodes, tmp_path: Path) -> None:
    found = on_ray.run(nodes.address, tmp_path, ("h100", "b200"), per_kind=4)
    assert found["suspects"].keys() == {"slow"}  # type: ignore[attr-defined]
    own = version("triton")
    assert found["differences"] == [f"h100: triton differs: 3.5.0 on old; {own} on a, b, slow"]
    assert {file.name.split(".")[1] for file in (tmp_path / "cells").glob("b200.*")} == {"a", "b"}
    assert len(cells(tmp_path, "h100")) == 4 * CELLS
    # Two have it, four were asked for.
    assert found["missing"] == {"b200": 2 * CELLS}


def test_a_worker_that_crashes_each_time_is_named(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = (sys.executable, "-c", "import os; os.abort()")
    monkeypatch.setattr(on_ray, "COMMAND", crash)
    monkeypatch.setattr(on_ray, "PROBLEMS", on_ray.PROBLEMS[:1])
    found = on_ray.run(nodes.address, tmp_path, ("b200",), retries=2)
    (trouble,) = found["troubles"]  # type: ignore[misc]
    assert "given up after 3 attempts" in trouble
    assert "ended with -6" in trouble
    began = [line for line in ledger.read(tmp_path / "ledger.jsonl") if isinstance(line, ledger.Began)]
    assert {line.machine for line in began} == {"a", "b"}


def test_a_node_that_is_killed_in_a_task_loses_nothing(nodes: Nodes, tmp_path: Path) -> None:
    def kill() -> None:
        notes = tmp_path / "ledger.jsonl"
        deadline = time.monotonic() + 200
        while b'"machine":"a"' not in (notes.read_bytes() if notes.exists() else b"") and time.monotonic() < deadline:
            time.sleep(0.05)
        nodes.kill("a")

    nodes.hold("a").touch()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = on_ray.run(nodes.address, tmp_path, ("b200",))
    finally:
        killer.join()
        nodes.hold("a").unlink()
        nodes.start("a")
    assert found["missing"] == {}
    assert len(cells(tmp_path, "b200")) == len({*cells(tmp_path, "b200")}) == CELLS
    lines = ledger.read(tmp_path / "ledger.jsonl")
    (lost,) = [line for line in lines if isinstance(line, ledger.Ended) and line.how == "lost"]
    (began,) = [line for line in lines if isinstance(line, ledger.Began) and line.attempt == lost.attempt]
    assert (began.machine, len(began.node), began.pid > 0) == ("a", 56, True)
    again = [line for line in lines if isinstance(line, ledger.Began) and line.problem == began.problem]
    assert [line.machine for line in again] == ["a", "b"]


def test_a_driver_that_is_killed_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    command = [sys.executable, str(TESTS / "fleet" / "on_ray.py"), nodes.address, str(tmp_path), "b200", "1"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(cells(tmp_path, "b200")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(cells(tmp_path, "b200")) >= 3
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])["missing"] == {}
    assert len(cells(tmp_path, "b200")) == len({*cells(tmp_path, "b200")}) == CELLS


def test_the_very_runner_on_this_machine_and_again_for_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rls_bench", "fleet", "run", "--on", "cpu", "--problem", "B1 H2 L64 D16 fp32"]
    command += ["--backend", "eager", "--backend", "unsteered", "--launches", "1", "--budget", "2"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "fastest correct backend is eager" in done.stdout
    assert len([*(tmp_path / "cells").glob("*.jsonl")]) == 2
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    lines = ledger.read(tmp_path / "ledger.jsonl")
    assert [type(line) for line in lines] == [ledger.Began, ledger.Ended]

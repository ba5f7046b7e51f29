"""The example of a third party's backend: right, and seen by every command once it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rls_bench.agreement import conformance
from rls_bench.backends import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_backend"


def test_the_example_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    backend = registry.get("rls_custom_backend.tiled:BACKEND")
    outcomes = list(conformance.check(backend))
    assert [outcome for outcome in outcomes if not outcome.holds] == []
    assert sum(outcome.status == "ok" for outcome in outcomes) > 25


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the example is installed beside rls-bench, through pip and its entry point."""
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(place), str(EXAMPLE)], check=True)
    # Wide enough that no table wraps a name.
    return {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "200"}


@pytest.mark.slow
def test_list_run_and_choose_see_it(installed: dict[str, str], tmp_path: Path) -> None:
    def rls_bench(*words: str) -> str:
        line = [sys.executable, "-c", "from rls_bench.cli.main import main; raise SystemExit(main())", *words]
        done = subprocess.run(line, env=installed, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = {entry["name"]: entry["status"] for entry in json.loads(rls_bench("list", "--json"))}
    assert listed["tiled"] == "measured"

    backends = ("--backend", "tiled", "--backend", "eager")
    problems = ("--problem", "B1 H2 L33 D16 fp32", "--problem", "B1 H2 L33 D16 fp32 eps=0.001")
    ran = rls_bench("run", *backends, *problems, "--inputs", "random", "--budget", "60", "--out", "out.jsonl")
    assert "tiled" in ran
    assert "has no row sum for eps" in ran

    assert "tiled" in rls_bench("choose", "out.jsonl")


@pytest.mark.slow
def test_its_own_test_passes(installed: dict[str, str]) -> None:
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLE / "tests")]
    done = subprocess.run(line, env=installed, cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""The workflows hold to GitHub's published schema, and every command in them is one that runs here, too."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# .ci/run calls these in a clean clone; the tests below call the others.
RUN_BY_CI = {"setup", "lint", "test", "test-slow", "inspect", "sanitize", "package"}
RUN_HERE = {"inspect-regression", "asv-smoke", "asv", "asv-publish"}
RUN_HERE |= {"gpu-agreement", "gpu-run", "gpu-profile", "gpu-compare"}


def commands() -> list[str]:
    steps: list[dict[str, Any]] = [
        step for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]
    ]
    return [step["run"] for step in steps if "run" in step]


def validates(path: Path) -> bool:
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(line, capture_output=True).returncode == 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_holds_to_the_published_schema(path: Path) -> None:
    assert validates(path)


def test_the_schema_notices_a_misspelt_key(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:", 1))
    assert not validates(bad)


def test_every_command_is_make_and_is_run_here_or_by_ci() -> None:
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "gpu.yml"}
    targets = {command.removeprefix("make ") for command in commands() if command.startswith("make ")}
    assert len(targets) == len(set(commands()))
    assert targets == RUN_BY_CI | RUN_HERE
    ci = (ROOT / ".ci" / "run").read_text().split()
    assert set(ci) >= RUN_BY_CI


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A scratch clone that is set up already, with this interpreter's packages."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = clone / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (environment / part.name).symlink_to(part)
    (environment / ".installed").touch()
    return clone


def make(clone: Path, target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(clone.parent), "ASV_MACHINE": "runner", "GPU": "runner"}
    line = ["make", "--no-print-directory", target, *variables]
    return subprocess.run(line, cwd=clone, env=environment, capture_output=True, text=True)


def made(clone: Path, target: str, *variables: str) -> str:
    done = make(clone, target, *variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_a_gpu_runner_does_works_on_a_cpu(clone: Path) -> None:
    few = ("BACKENDS=eager unsteered", "DEVICE=cpu")
    assert "0 not conforming" in made(clone, "gpu-agreement", *few)
    made(clone, "gpu-run", *few, "SUITE=smoke", "RUN=--budget 60 --launches 1 --inputs random")
    records = clone / ".asv" / "records" / "runner.jsonl"
    assert records.exists()

    compared = ("BACKENDS=eager", "SUITE=smoke", "BEFORE=HEAD", "AB=--budget 90 --threshold 50%")
    assert "::error" not in made(clone, "gpu-compare", *compared)
    with (clone / "rls_bench" / "backends" / "eager.py").open("a") as file:
        file.write("\nBACKEND.prepare = lambda inputs: lambda: inputs.query * 0\n")
    worse = make(clone, "gpu-compare", *compared)
    assert worse.returncode != 0
    assert "::error title=BROKEN%3A eager" in worse.stdout

    refused = make(clone, "gpu-profile", "DEVICE=cpu")
    assert refused.returncode != 0
    assert "probe ncu: " in refused.stderr


def seen_without_network(chromium: str, site: Path) -> str:
    """The document as the browser has it once the page is drawn, with every host but this one out of reach."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
        offline = ["--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>;127.0.0.1"]
        line = [chromium, *options, *offline, f"http://127.0.0.1:{server.server_port}/"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        server.shutdown()
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_asv_saves_and_publishes_a_site_that_needs_no_network(clone: Path) -> None:
    made(clone, "asv-smoke")
    made(clone, "asv", "ASV=--quick --bench ^imports")
    machine = yaml.safe_load((clone / "results" / "asv" / "runner" / "machine.json").read_text())
    assert machine["torch"]
    assert machine["gpu"]
    assert machine["driver"]

    made(clone, "asv-publish")
    site = clone / ".asv" / "html"
    index = yaml.safe_load((site / "index.json").read_text())
    assert {"gpu", "driver", "torch"} <= set(index["params"])
    assert any("imports.Imports.timeraw_package" in name for name in index["benchmarks"])
    page = (site / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    if chromium := shutil.which("chromium"):
        seen = seen_without_network(chromium, site)
        # Drawn by its script, from the published data.
        assert "<span>torch</span>" in seen
        assert machine["torch"] in seen


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_inspector_compares_with_a_commit(clone: Path) -> None:
    said = made(clone, "inspect-regression", "BASE=HEAD", "INSPECT=--arch sm_90 --only D64 --only unsteered")
    assert "sm_90" in said

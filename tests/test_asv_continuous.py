"""``asv continuous`` between two commits: a planted slowdown is found, an identical pair is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paced import EAGER, pace

ROOT = Path(__file__).parents[1]


def git(clone: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=clone, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A scratch clone whose suites are cut down to a cell each; asv takes them from the working tree."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(clone))
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.invalid")
    # The environments of the two commits share this interpreter's packages.
    configuration = clone / "asv.conf.json"
    packages = Path(pytest.__file__).parents[1]
    shared = "glob.glob('{conf_dir}/.venv/lib/python*/site-packages')[0]"
    text = configuration.read_text()
    assert shared in text
    configuration.write_text(text.replace(shared, f"'{packages}'"))
    suite = clone / "benchmarks" / "prefill.py"
    text = suite.read_text()
    assert "(BACKENDS, [256, 1024])" in text
    suite.write_text(text.replace("(BACKENDS, [256, 1024])", '(["eager"], [256])\n    budget_seconds = 10.0'))
    suite = clone / "benchmarks" / "host_cost.py"
    text = suite.read_text()
    assert "(list(SIZES), WAYS)" in text
    suite.write_text(text.replace("(list(SIZES), WAYS)", '(["short"], ["eager"])'))
    return clone


def commit(clone: Path, message: str) -> str:
    git(clone, "commit", "--quiet", "--allow-empty", "--message", message, "--", str(EAGER))
    return git(clone, "rev-parse", "HEAD")


def continuous(clone: Path, base: str, new: str) -> subprocess.CompletedProcess[str]:
    asv = str(Path(sys.executable).with_name("asv"))
    environment = {**os.environ, "HOME": str(clone.parent), "RLS_BENCH_SUITES": "prefill"}
    subprocess.run([asv, "machine", "--machine", "scratch", "--yes"], cwd=clone, env=environment, check=True)
    # Twice as slow counts: machines that run tests are busy, and a held call is late by some milliseconds.
    factor = ["--factor", "2", "--bench", "prefill.Prefill.track_latency", "--bench", "host_cost.HostCost"]
    return subprocess.run(
        [asv, "continuous", "-E", "virtualenv", "--machine", "scratch", *factor, base, new],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_planted_slowdown_is_found(clone: Path) -> None:
    pace(clone, 0.05)
    base = commit(clone, "base")
    pace(clone, 0.25)
    done = continuous(clone, base, commit(clone, "planted"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SOME BENCHMARKS HAVE CHANGED SIGNIFICANTLY" in done.stdout
    assert "track_latency('eager'" in done.stdout
    assert "host_cost.HostCost.time_call('short', 'eager')" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_identical_pair_is_not(clone: Path) -> None:
    pace(clone, 0.05)
    base = commit(clone, "base")
    done = continuous(clone, base, commit(clone, "the same again"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BENCHMARKS NOT SIGNIFICANTLY CHANGED" in done.stdout

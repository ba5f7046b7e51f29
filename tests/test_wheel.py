"""The wheel works away from the checkout, data files included."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = (
        "import rls_bench, rls_kernels, rls_baselines; "
        "from rls_bench.problems import suites; from rls_bench.problems.draw import draw; "
        "from rls_bench.backends import registry; "
        "print(rls_bench.__file__); "
        "print(draw(suites.get('smoke')[0]).query.shape[2], len(registry.names()), registry.get('cpu').available())"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed[0].startswith(str(unpacked))
    assert printed[1].startswith("63 11 ")
    assert "supported=True" in printed[1]

"""What --benchmark-only reads; torch's seed; and the NVML stub, built once a session, with who loads it as NVIDIA's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under --benchmark-only leave files that time nothing unread: each of their tests would only be skipped."""
    if not config.getoption("benchmark_only", default=False) or collection_path.suffix != ".py":
        return None
    return None if collection_path.name in ("test_cells.py", "conftest.py") else True


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """What a test draws of torch without a seed of its own doesn't hang on the tests before it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that holds the stub as libnvidia-ml.so.1."""
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parent / "machines" / "nvml_stub.c"
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder


@pytest.fixture
def with_nvml(nvml_library: Path) -> Callable[..., Any]:
    """Run a line of Python that sets ``answer``, in a process that finds the stub; keywords are its STUB_ knobs."""

    def run(code: str, **knobs: str) -> Any:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library)}
        environment |= {f"STUB_{name.upper()}": value for name, value in knobs.items()}
        printed = "\nimport json\nprint(json.dumps(answer))"
        done = subprocess.run([sys.executable, "-c", code + printed], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run

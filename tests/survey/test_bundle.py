"""What a machine without a network is given, and that it starts there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rls_bench.errors import RlsBenchError
from rls_bench.survey import bundle


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose only wheel holds a module that nobody has."""

    def download(wheels: Path, python: str) -> None:
        wheels.mkdir()
        with zipfile.ZipFile(wheels / "only_there-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("only_there.py", "")
            # What the machine has is preferred to what the bundle brings.
            wheel.writestr("msgspec.py", "raise ImportError('shadowed')")

    monkeypatch.setattr(bundle, "_download", download)
    assert "for Python 3.12" in bundle.pack(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_starts_by_itself(packed: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    line = [sys.executable, str(packed / "survey.py"), "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout
    assert (packed / "site" / "only_there.py").exists()
    refused = subprocess.run([*line[:2], "--minutes", "none"], cwd=tmp_path, env=environment, capture_output=True)
    assert refused.returncode == 2


def test_weights_that_no_survey_asks_for_stay_behind(packed: Path) -> None:
    data = packed / "source" / "rls_bench" / "data"
    assert (data / "real_inputs.safetensors").exists()
    assert not list(data.rglob("seed_*"))


def test_a_folder_that_holds_something_is_left_alone(packed: Path) -> None:
    with pytest.raises(RlsBenchError, match="wanted a new or an empty folder"):
        bundle.pack(packed)

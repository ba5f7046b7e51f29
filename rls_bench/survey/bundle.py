"""What a machine without a network needs for a survey, in one folder: sources, and packages for its Python.

Torch, numpy and Triton are the machine's own. What its Python has already is preferred to what the folder holds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from rls_bench.errors import RlsBenchError

# What a survey imports beside torch and Triton. What draws is left out: it would not fit beside these into 60 MiB, and
# pictures can be drawn from the records anywhere.
_PACKAGES = ("msgspec", "platformdirs", "typer", "rich", "safetensors", "nvidia-ml-py", "scipy", "pandas")
# Comes with the machine's torch, and must be the one that it was built for.
_THE_MACHINES = "numpy-*.whl"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "any")
_SOURCES = ("rls_bench", "kernels", "baselines", "pyproject.toml")
# Weights of the small models that `evaluate` asks, and no survey.
_LEFT_OUT = ("__pycache__", "*.pyc", "seed_*.safetensors")
_START = '''"""Runs `rls-bench survey` from this folder: python survey.py [--minutes 8] [--device cuda] [--out DIR]."""

import os
import sys
import zipfile
from pathlib import Path

here = Path(__file__).resolve().parent
site = here / "site"
if not site.exists():
    # Whole or not at all: two may start at once.
    part = here / f"site.{os.getpid()}"
    for wheel in sorted((here / "wheels").glob("*.whl")):
        zipfile.ZipFile(wheel).extractall(part)
    part.rename(site)
sys.path[:0] = [str(here / "source" / part) for part in ("", "kernels", "baselines")]
# Behind the machine's own packages, which its torch was installed with.
sys.path.append(str(site))

from rls_bench.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.argv[1:1] = ["survey"]
    sys.exit(main())
'''


def pack(folder: Path, python: str = "3.12") -> str:
    """Fill ``folder`` for a Linux machine on x86-64 with that Python; what it holds and how it is started, in one line.

    Raises RlsBenchError where ``folder`` has something in it, this is no checkout, or pip cannot get a package.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise RlsBenchError(f"bundle: wanted a checkout to pack; {root} has no pyproject.toml")
    if folder.exists() and any(folder.iterdir()):
        raise RlsBenchError(f"bundle {folder}: wanted a new or an empty folder")
    for name in _SOURCES:
        _copy(root / name, folder / "source" / name)
    _download(folder / "wheels", python)
    (folder / "survey.py").write_text(_START)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{folder}: {size / 2**20:.0f} MiB for Python {python}; start it there with: python {folder.name}/survey.py"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy(source, target)
    else:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LEFT_OUT))


def _download(wheels: Path, python: str) -> None:
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    line += ["--only-binary=:all:", f"--python-version={python}", *platforms, f"--dest={wheels}", *_PACKAGES]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise RlsBenchError(f"bundle: pip could not get a package: {''.join(done.stderr.strip().splitlines()[-1:])}")
    for wheel in wheels.glob(_THE_MACHINES):
        wheel.unlink()

"""The map in CONTRIBUTING.md against the folders, and what may stand loose in the package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def rooms(page: str, start: str, end: str) -> list[str]:
    """Names in the first column of the table between two phrases of ``page``."""
    section = page.split(start)[1].split(end)[0]
    return re.findall(r"^\| `([\w./]+)` \|", section, flags=re.MULTILINE)


def contents(folder: Path) -> set[str]:
    """Folders and modules as the map writes them: ``problems/``, ``attention.py``."""
    found = {f"{path.name}/" for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    return found | {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}


def test_the_map_names_every_room_and_no_other() -> None:
    named = rooms((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "has a room for each question", "Around it:")
    assert len(named) == len(set(named))
    assert set(named) == contents(ROOT / "rls_bench")


def test_the_map_shows_a_room_that_is_missing() -> None:
    page = "has a room for each question\n| `attention.py` | the operator |\nAround it:"
    assert rooms(page, "has a room for each question", "Around it:") == ["attention.py"]
    assert contents(ROOT / "rls_bench") - {"attention.py"}


def test_no_module_stands_loose() -> None:
    assert {path.stem for path in (ROOT / "rls_bench").glob("*.py")} == {
        "__init__",
        "__main__",
        "attention",
        "errors",
        "pytest_plugin",
    }


def test_nothing_shadows_the_package_called_kernels() -> None:
    assert not [name for name in ("kernels", "baselines") if (ROOT / name / "__init__.py").exists()]


def test_the_map_names_the_folders_around() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name.split("/")[0] for name in rooms(page, "Around it:", "## A new backend")}
    tracked = {"kernels", "baselines", "benchmarks", "examples", "docs", "tests", "results"}
    assert named == tracked
    assert all((ROOT / name).is_dir() for name in named)

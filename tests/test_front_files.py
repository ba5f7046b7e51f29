"""What hosting sites and tools read of the repository: each file holds to its published schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def holds(schema: str, *paths: Path) -> bool:
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    return subprocess.run(line, capture_output=True).returncode == 0


def test_each_file_holds_to_its_schema() -> None:
    assert holds("citation-file-format", ROOT / "CITATION.cff")
    assert len(FORMS) >= 3
    assert holds("github-issue-forms", *FORMS)


@pytest.mark.parametrize(
    ("schema", "file"),
    [("citation-file-format", "CITATION.cff"), ("github-issue-forms", ".github/ISSUE_TEMPLATE/fault.yml")],
)
def test_a_broken_file_does_not(schema: str, file: str, tmp_path: Path) -> None:
    broken = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    del broken["title" if "title" in broken else "body"]
    path = tmp_path / "broken.yml"
    path.write_text(yaml.safe_dump(broken), encoding="utf-8")
    assert not holds(schema, path)


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_the_hooks_run_what_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint: setup\n")[1].split("\n\n")[0]
    for tool in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert any(tool in hook["entry"] for hook in hooks)
        assert tool in lint

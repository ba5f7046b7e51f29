"""Every Shell and Python block of README and docs runs, but those that say why not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import pytest

PAGES = documents.pages()
# As many blocks as need what a test has not: a GPU, a repository's history, minutes. A new one is a decision.
MARKED = 0


def runnable(page: Path) -> list[documents.Block]:
    found = documents.blocks(page.read_text(encoding="utf-8"))
    return [block for block in found if block.language in ("sh", "python") and not block.marked]


def test_each_block_says_what_it_is() -> None:
    unlabelled = [
        f"{page.name}:{block.line}"
        for page in PAGES
        for block in documents.blocks(page.read_text(encoding="utf-8"))
        if block.language not in ("sh", "python", "text", "toml", "json", "yaml")
    ]
    assert unlabelled == []


def test_no_command_hides_from_the_tests() -> None:
    """Commands stand in fences that say so: an indented one would never run."""
    hidden = [
        f"{page.name}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if re.match(r" {4}(\w+=\S+ )*(rls-bench|python|pytest|asv|make|pip|git) ", line)
    ]
    assert hidden == []


def test_blocks_that_do_not_run_are_counted() -> None:
    marked = [block for page in PAGES for block in documents.blocks(page.read_text(encoding="utf-8")) if block.marked]
    assert len(marked) == MARKED


def test_a_mark_is_a_line_that_readers_see() -> None:
    page = "*Not run by the tests: needs a GPU.*\n\n```sh\nnvidia-smi\n```\n\n"
    page += "text\n```python\n# my_kernel.py\nx = 1\n```\n"
    shell, python = documents.blocks(page)
    assert (shell.marked, shell.text, shell.line) == (True, "nvidia-smi\n", 4)
    assert (python.marked, python.file) == (False, "my_kernel.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder; the page's Python shares its names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Nobody's policy, and room for tables.
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "120",
        "REPOSITORY": str(documents.ROOT),
    }
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in runnable(page):
        place = f"{page.name}:{block.line}"
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, place, "exec"), names)
        else:
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{place}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}"

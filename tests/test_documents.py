"""Every Shell and Python block of README and docs runs, but those that say why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import drawn_records
import pytest

PAGES = documents.pages()
# Pages whose commands want a checkout of this repository with a commit before its last.
IN_CHECKOUT = ("slowdown",)
# A problem and a time for those pages that let the reader's shell name them.
SMALL = {"PROBLEM": "B1 H4/2 Lq1 Lk64 D16 bf16", "BUDGET": "20"}
# Files that a page's commands read, as a run before them would have written.
RESULTS = ("base.jsonl", "new.jsonl", "results.jsonl")
# As many blocks as need what a test has not: a GPU, a repository's history, minutes. A new one is a decision.
MARKED = 26


def runnable(page: Path) -> list[documents.Block]:
    found = documents.blocks(page.read_text(encoding="utf-8"))
    return [block for block in found if block.language in ("sh", "python") and not block.marked]


def checkout(folder: Path) -> Path:
    """This repository's files as they are, in one commit, and an empty commit behind it."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=documents.ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (source := documents.ROOT / name).is_file() and not name.startswith(("results/", "docs/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "One"], ["commit", "-qm", "Two", "--allow-empty"]):
        subprocess.run([*git, *words], check=True)
    return folder


def shell(text: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As a reader's shell runs it, and the first command that fails ends it."""
    command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_each_block_says_what_it_is() -> None:
    found = [f"{page.name}:{line}" for page in PAGES for line in documents.unlabelled(page.read_text(encoding="utf-8"))]
    assert found == []


def test_no_command_hides_from_the_tests() -> None:
    found = [f"{page.name}:{line}" for page in PAGES for line in documents.hidden(page.read_text(encoding="utf-8"))]
    assert found == []


def test_what_says_nothing_or_hides_is_found() -> None:
    page = "```\nrls-bench run\n```\n\n    rls-bench run --suite smoke\n\n```sh\n    rls-bench run\n```\n"
    assert (documents.unlabelled(page), documents.hidden(page)) == ([2], [5])


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
    if page.stem in IN_CHECKOUT:
        tmp_path = checkout(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    for name in RESULTS:
        drawn_records.write(tmp_path / name, drawn_records.run(seed=len(name), cells=8))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Nobody's policy, and room for tables.
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "120",
        **SMALL,
    }
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in runnable(page):
        place = f"{page.name}:{block.line}"
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, place, "exec"), names)
        else:
            done = shell(block.text, environment)
            if "raise --budget" in done.stderr + done.stdout:
                # Processes take longer to start here than the whole of it should.
                done = shell(block.text, environment | {"BUDGET": "240"})
            # A verdict is no failure of the command: slower and ambiguous have exit codes of their own.
            good = (0, 1, 3) if re.search(r"^rls-bench (ab|compare) ", block.text, re.MULTILINE) else (0,)
            if "the coordinator's differ" in done.stdout and "other processes used" in done.stdout:
                # A machine so busy that a worker gets no time: run calls the cell failed, and ends with 1.
                good = (0, 1)
            assert done.returncode in good, f"{place}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr

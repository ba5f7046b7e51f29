"""The blocks of README and docs, as a reader would copy them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Stands on a line of its own above a block that the tests leave out, with the reason; a reader sees it.
_MARK = re.compile(r"^\*Not run by the tests: .+\*$")
_FENCE = re.compile(r"^( *)```(\w*)$")
_LANGUAGES = ("sh", "python", "text", "toml", "json", "yaml")
_COMMAND = re.compile(r" {4}(\w+=\S+ )*(rls-bench|python|pytest|asv|make|pip|git) ")
# A block of Python that begins with a comment such as `# my_kernel.py` is that file.
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line's number in the document, language and text; ``marked``: not to be run."""

    line: int
    language: str
    text: str
    marked: bool

    @property
    def file(self) -> str:
        """The name of the file that the block is, or nothing."""
        found = _FILE.match(self.text) if self.language == "python" else None
        return found[1] if found else ""


def pages() -> list[Path]:
    """Every document whose blocks are for readers to run."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "examples").glob("*/README.md")),
    ]


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    lines = page.splitlines()
    start = 0
    opened: re.Match[str] | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened, start = fence, number
            continue
        above = [text for text in lines[:start] if text.strip()][-1:]
        text = "\n".join(each.removeprefix(opened[1]) for each in lines[start + 1 : number]) + "\n"
        yield Block(start + 2, opened[2], text, bool(above) and bool(_MARK.match(above[0].strip())))
        opened = None


def unlabelled(page: str) -> list[int]:
    """Lines of blocks that don't say what they are."""
    return [block.line for block in blocks(page) if block.language not in _LANGUAGES]


def hidden(page: str) -> list[int]:
    """Lines of commands outside of fences, which would never run."""
    fenced = {number for block in blocks(page) for number in range(block.line, block.line + block.text.count("\n"))}
    lines = enumerate(page.splitlines(), 1)
    return [number for number, line in lines if number not in fenced and _COMMAND.match(line)]

"""A figure that was measured stands in a section that says when, or which file under ``results/`` holds it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Times, rates and ratios; a share or a size is mostly a setting.
FIGURE = re.compile(r"\b\d[\d.,]*\s?(?:ms|µs|GB/s|× the)\b")
SOURCE = re.compile(r"20\d\d-\d\d-\d\d|\b\d{1,2} [A-Z]\w+ 20\d\d|\bresults/\w")
# What these quote is how the protocol is set, or an example of a table.
SETTINGS = {
    ("how-we-measure.md", "One run"),
    ("how-we-measure.md", "One sample"),
    ("probes.md", "Import Nsight reports"),
    ("probes.md", "How each figure is defined"),
    ("read-the-report.md", "Read the report"),
    ("what-is-guarded.md", "What isn't guarded"),
}


def untraced(text: str) -> dict[str, list[str]]:
    """Figures by the heading of a section that names no source for them; fenced blocks aside."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    sections = re.split(r"^#+ ", prose, flags=re.MULTILINE)
    found = {part.split("\n", 1)[0]: FIGURE.findall(part) for part in sections if not SOURCE.search(part)}
    return {heading: figures for heading, figures in found.items() if figures}


def test_every_section_with_a_figure_says_where_it_comes_from() -> None:
    found = {(page.name, heading) for page in PAGES for heading in untraced(page.read_text(encoding="utf-8"))}
    assert found == SETTINGS


def test_a_figure_without_a_source_is_found() -> None:
    assert untraced("# Speed\nA call takes 12 µs.\n## More\nOn 2026-11-27 it took 3 ms.\n") == {"Speed": ["12 µs"]}

"""What documents quote from files under ``results/`` is what those files hold."""

from __future__ import annotations

import pytest

from benchmarks import docs_figures


@pytest.mark.parametrize("name", docs_figures.DOCUMENTS)
def test_a_document_says_what_its_file_says(name: str) -> None:
    text = (docs_figures.ROOT / name).read_text(encoding="utf-8")
    assert "<!-- figure" in text
    assert docs_figures.renewed(text) == text, f"{name} and results/ differ: make docs-figures"


def test_a_figure_or_a_table_that_was_changed_by_hand_is_written_anew() -> None:
    cases = docs_figures.NAMED["cases"]()
    assert docs_figures.renewed("all 168<!-- figure: cases --> of them") == f"all {cases}<!-- figure: cases --> of them"
    table = "<!-- figures: groups -->\n| 1 | 2 |\n<!-- /figures -->"
    assert "| 1 | 2 |" not in docs_figures.renewed(table)
    assert docs_figures.renewed(docs_figures.renewed(table)) == docs_figures.renewed(table)


def test_a_name_that_nothing_stands_behind_is_an_error() -> None:
    with pytest.raises(KeyError):
        docs_figures.renewed("1<!-- figure: nonesuch -->")

"""Text that others wrote, in each form in which it is shown."""

from __future__ import annotations

import io

import pytest
import rich.console

from rls_bench.records import escape

RED = "\x1b[31mred\x1b[0m"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (RED, "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("back\bspace\r", "back\\x08space\\r"),
        # Turns what follows around, so that a reader sees another text than the program.
        ("\u202egnp.exe", "\\u202egnp.exe"),
        # A byte of a file name that is no UTF-8.
        ("caf\udce9", "caf\\udce9"),
        ("λ[bhq] ± 1 %\tnaïve\n", "λ[bhq] ± 1 %\tnaïve\n"),
    ],
)
def test_what_has_no_shape_is_written_out(written: str, shown: str) -> None:
    assert escape.visible(written) == shown


def test_one_line_holds_no_break() -> None:
    assert escape.one_line("one\r\n two\u2028three") == "one two three"


def test_rich_takes_nothing_for_markup() -> None:
    file = io.StringIO()
    rich.console.Console(file=file, force_terminal=True, width=80).print(escape.text(f"[bold]a[/] :smile: {RED}"))
    assert "[bold]a[/] :smile: \\x1b[31mred" in file.getvalue()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a|b", "a\\|b"),
        ("`*_[x](y)~~", "\\`\\*\\_\\[x\\](y)\\~\\~"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("two\nlines", "two lines"),
        (RED, "\\\\x1b\\[31mred\\\\x1b\\[0m"),
    ],
)
def test_markdown_shows_it_as_it_is(written: str, shown: str) -> None:
    assert escape.markdown(written) == shown


def test_a_workflow_command_is_not_ended_or_begun_by_its_data() -> None:
    assert escape.github_data("50%\n::set-env::x\x1b") == "50%25%0A::set-env::x\\x1b"
    assert escape.github_property("a,b: c") == "a%2Cb%3A c"


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_cell_that_begins_a_formula_is_quoted(formula: str) -> None:
    assert escape.csv_cell(formula).startswith("'")


def test_other_cells_stay() -> None:
    assert escape.csv_cell("sdpa-cpu") == "sdpa-cpu"

"""What commands print: markup inert, escape sequences shown, and nothing cut where nobody looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import run, write
from rich.table import Table
from rich.text import Text

from rls_bench.cli import tables
from rls_bench.cli.console import Console


def printed(capsys: pytest.CaptureFixture[str], *values: object) -> str:
    Console().print(*values)
    return capsys.readouterr().out


def test_markup_emoji_and_brackets_print_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    written = "[bold]λ[bhq][/bold] :smile: [/INST] [link=file:x]"
    table = Table("name", title=written)
    table.add_row(written)
    assert printed(capsys, written) == written + "\n"
    assert printed(capsys, table).count(written) == 2


def test_escape_sequences_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "other")
    table.add_row("\x1b]0;owned\x07\x9b2J", Text("\x1b]0;\x9b2J"))
    shown = printed(capsys, table, Text("\x1b[31m"))
    assert "\\x1b]0;owned\\x07\\x9b2J" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_no_figure_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = replace(run(1)[0], backend="a" * 200, label="a" * 200)
    tables.show(Console(), [long], 0.01)
    shown = capsys.readouterr().out
    assert "a" * 200 in shown
    assert "…" not in shown


def test_the_layout_of_strength_stays_in_the_heading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    entry = run(1)[0]
    entry = replace(entry, problem=replace(entry.problem, strength_layout="bhq", name="per [query]"))
    write(tmp_path / "r.jsonl", [entry])
    tables.show(Console(), [entry])
    shown = capsys.readouterr().out
    assert "λ[bhq]" in shown
    assert "per [query]" in shown

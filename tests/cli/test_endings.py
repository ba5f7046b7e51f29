"""However a command ends: its exit code, and the one line on standard error that says why."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from drawn_records import run, write

from rls_bench.cli import main as entry
from rls_bench.errors import RecordError

VERDICTS = {0, 1, 3, 4}


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> NoReturn:
        raise error

    return command


def broken_pipe_inside_another_exit() -> int:
    try:
        raise BrokenPipeError
    except BrokenPipeError:
        sys.exit(1)


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        (raising(RecordError("no such file")), 2, "rls-bench: no such file\n"),
        (raising(PermissionError(errno.EACCES, "Permission denied", "out/x")), 2, "out/x: Permission denied"),
        (raising(OSError(errno.ENOSPC, "No space left on device")), 2, "No space left on device"),
        (raising(ImportError("libcudart.so.13")), 2, "cannot be imported: libcudart.so.13"),
        (raising(MemoryError()), 2, "rls-bench: out of memory\n"),
        (raising(KeyboardInterrupt()), 130, "rls-bench: interrupted\n"),
        (lambda: 130, 130, "rls-bench: interrupted\n"),
        (raising(BrokenPipeError()), 141, ""),
        (broken_pipe_inside_another_exit, 141, ""),
        (raising(ZeroDivisionError("x\ny")), 70, "fault in test_endings.py:"),
        (raising(RecursionError("too deep")), 70, "RecursionError: too deep; please report it"),
        # A plugin that exits says nothing about any verdict.
        (raising(SystemExit(1)), 70, "SystemExit: 1"),
        (raising(RecordError("\x1b[31m")), 2, "rls-bench: \\x1b[31m\n"),
        (lambda: 3, 3, ""),
    ],
)
def test_each_way_has_a_code_and_at_most_one_line(
    command: Callable[[], int], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.ended(command) == code
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == bool(line)
    assert "Traceback" not in told


def test_the_traceback_is_there_for_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(entry.TRACEBACK, "1")
    assert entry.ended(raising(ZeroDivisionError())) == 70
    assert "Traceback" in capsys.readouterr().err


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["rls-bench", *map(str, arguments)])
    return entry.main()


def test_usage_is_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(monkeypatch, "compare", "--thresh\x1bold") == 2
    told = capsys.readouterr().err
    assert "\\x1b" in told
    assert "\x1b" not in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("command", ["show", "compare", "choose", "report"])
def test_a_full_disk_is_no_verdict(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write(tmp_path / "r.jsonl", run(1))
    arguments = {"compare": [results, results], "report": [results, "--format", "csv"]}.get(command, [results])
    with open("/dev/full", "w") as full, open(tmp_path / "errors", "w+") as errors:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", errors)
        assert command_line(monkeypatch, command, *arguments) == 2
        errors.seek(0)
        assert errors.read().count("No space left on device") == 1


@pytest.mark.parametrize("command", ["show", "report"])
def test_a_reader_that_went_away_is_not_worth_a_word(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results = write(tmp_path / "r.jsonl", run(1))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        form = ["--format", "csv"] if command == "report" else []
        assert command_line(monkeypatch, command, results, *form) == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", [("show",), ("report", "--format", "markdown"), ("report", "--format", "csv")])
def test_any_encoding_of_standard_output_will_do(
    encoding: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write(tmp_path / "r.jsonl", run(1))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert command_line(monkeypatch, *command, results) == 0
    assert b"backend-3" in raw.getvalue()


def test_a_closed_standard_output_swallows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write(tmp_path / "r.jsonl", run(1))
    monkeypatch.setattr(sys, "stdout", None)
    assert command_line(monkeypatch, "show", results) == 0
    sys.stdout.close()


def test_no_code_of_an_ending_is_a_verdicts() -> None:
    assert not VERDICTS & {entry.CANNOT, entry.FAULT, entry.INTERRUPTED, entry.UNREAD}

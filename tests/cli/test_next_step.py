"""Every verdict ends with the next command, as it can be typed."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from drawn_records import problem, record, run, write
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.problems import grammar
from rls_bench.records.record import Record

COMMANDS = typer.main.get_command(app)


def following(*words: str) -> list[str]:
    """The command that ``rls-bench WORDS`` ends with, which the command line understands."""
    lines = [line for line in CliRunner().invoke(app, list(words)).output.splitlines() if line.startswith("next: ")]
    found = shlex.split(lines[-1].removeprefix("next: "))
    assert found[0] == "rls-bench"
    COMMANDS.commands[found[1]].make_context(found[1], found[2:])  # type: ignore[attr-defined]
    for option, value in itertools.pairwise(found):
        if option == "--problem":
            grammar.parse(value)
    return found[1:]


@pytest.mark.parametrize(
    ("new", "begins"),
    [
        ([*run(2), replace(run(2)[0], status="crashed", samples_ns={}, reason="signal 11")], "conformance backend-0"),
        (run(2, slower={3: 1.5}), "profile backend-3 --problem B1 H8 L64 D64 fp32 --device cpu"),
        (run(2)[1:], "run --out new.jsonl --problem B1 H8 L64 D64 fp32 --backend backend-0"),
        (run(2, between=0.1), "run --out new.jsonl --problem B1 H8 "),
        (run(2), "report base.jsonl new.jsonl --html report.html"),
    ],
    ids=["broken", "slower", "gone", "ambiguous", "same"],
)
def test_a_comparison_is_followed_by(
    new: list[Record], begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("base.jsonl"), run(1))
    write(Path("new.jsonl"), new)
    assert " ".join(following("compare", "base.jsonl", "new.jsonl")).startswith(begins)


def test_a_choice_is_followed_by_its_policy_and_then_by_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = [record(name, problem(), [[time, time * 1.001]] * 3) for name, time in (("cpu", 1e6), ("eager", 2e6))]
    write(Path("results.jsonl"), entries)
    assert following("choose", "results.jsonl") == ["choose", "results.jsonl", "--policy", "policy.json"]
    assert following("choose", "results.jsonl", "--policy", "policy.json")[0] == "report"


def test_what_was_left_open_is_followed_by_the_run_that_settles_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("results.jsonl"), [record("cpu", problem(), [[1e6, 1.001e6]], suite="smoke")])
    assert following("choose", "results.jsonl")[:3] == ["run", "--suite", "smoke"]

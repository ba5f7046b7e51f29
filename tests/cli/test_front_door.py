"""What a newcomer sees first: help in groups, list and doctor in 80 columns, and JSON of the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_records import launches, problem, record, write
from typer.testing import CliRunner

from rls_bench.cli import list as listing
from rls_bench.cli.app import COMMANDS, app
from rls_bench.errors import BackendUnavailable


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_help_groups_every_command_and_cuts_no_line() -> None:
    lines = printed("--help").splitlines()
    assert max(map(len, lines)) <= 80
    for panel, commands in COMMANDS.items():
        start = lines.index(f"{panel}:")
        section = lines[start + 1 : start + 1 + len(commands)]
        assert [line.split()[0] for line in section] == [name for name, _, _ in commands]
        assert [line.split(maxsplit=1)[1] for line in section] == [text for _, _, text in commands]


def test_the_shell_can_complete() -> None:
    assert "--install-completion" in printed("--help")


def test_list_gives_each_backend_one_line_and_each_reason_once() -> None:
    lines = printed("list").splitlines()
    names = {one.name for one in listing.backends_here()}
    assert {line.split()[0] for line in lines if line.startswith("  ")} == names
    assert max(len(line.rstrip()) for line in lines) <= 80
    reasons = {one.why for one in listing.backends_here() if one.why}
    assert all(sum(reason in line for line in lines) == 1 for reason in reasons)


def test_a_backend_that_cannot_be_imported_is_listed_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from rls_bench.backends import registry

    def broken(name: str) -> None:
        raise BackendUnavailable(f"{name}: no such module")

    monkeypatch.setattr(registry, "names", lambda: ["theirs"])
    monkeypatch.setattr(registry, "get", broken)
    assert "broken" in printed("list")
    assert "theirs: no such module" in printed("list")


def test_list_and_doctor_speak_json() -> None:
    backends = json.loads(printed("list", "--json"))
    assert {one["name"] for one in backends} >= {"cpu", "eager", "unsteered"}
    report = json.loads(printed("doctor", "--json"))
    assert report["backends"] == backends
    assert {"machine", "torch", "C++ compiler"} <= {one["name"] for one in report["findings"]}


def test_show_compare_and_choose_speak_json(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    costs = {"cpu": 1e6, "sdpa-cpu": 3e6}
    path = str(write(tmp_path / "r.jsonl", [record(name, problem(), launches(rng, ns)) for name, ns in costs.items()]))
    (table,) = json.loads(printed("show", path, "--json"))["tables"]
    assert [one["backend"] for one in table["backends"]] == ["cpu", "sdpa-cpu"]
    assert table["backends"][0]["latency_ns"]["warm"]["median"] == pytest.approx(1e6, rel=0.1)
    (machine,) = json.loads(printed("choose", path, "--json"))["machines"]
    assert [decision["backend"] for decision in machine["decisions"]] == ["cpu"]
    assert printed("compare", path, path, "--json") == printed("compare", path, path, "--format", "json")

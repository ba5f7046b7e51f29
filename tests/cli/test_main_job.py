"""The main job as its user meets it: run, show, list, doctor, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.problems import suites
from rls_bench.records import record


def rls_bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as installed beside this interpreter."""
    program = Path(sys.executable).with_name("rls-bench")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ})


@pytest.mark.slow
def test_a_run_measures_prints_and_records(tmp_path: Path) -> None:
    backends = [word for name in ("eager", "unsteered", "sdpa-cudnn") for word in ("--backend", name)]
    words = ("--suite", "smoke", "--detail", "--launches", "1", "--budget", "60", "--out", "r.jsonl")
    done = rls_bench("run", *words, *backends, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fastest correct backend is eager" in done.stdout
    assert "noise floor" in done.stdout
    assert "time: " in done.stdout
    assert "starting processes" in done.stdout

    records = list(record.read(tmp_path / "r.jsonl"))
    by_status = {(entry.backend, entry.status) for entry in records}
    assert {("eager", "ok"), ("unsteered", "ok"), ("unsteered", "unsupported")} <= by_status
    eager = [entry for entry in records if entry.label == "eager"]
    # On a machine that is busy enough there is no time for all of them, and that is said.
    assert len(eager) == len(suites.get("smoke")) or "left out" in done.stdout
    assert eager
    assert all(entry.agreement and entry.agreement.passed and entry.samples_ns["warm"] for entry in eager)

    shown = rls_bench("show", "r.jsonl", folder=tmp_path)
    assert shown.returncode == 0
    assert "per-query λ" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--suite", "huge"], "wanted one of"),
        (["run", "--dtype", "float64"], "float64"),
        (["run", "--budget", "0"], "budget"),
        (["run", "--resume", "absent.jsonl"], "absent.jsonl"),
        (["show", "absent.jsonl"], "absent.jsonl"),
        (["fly"], "fly"),
    ],
)
def test_bad_usage_is_two(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = rls_bench(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_unknown_backend_is_bad_usage_and_measures_nothing(tmp_path: Path) -> None:
    done = rls_bench("run", "--backend", "flash9", "--out", "r.jsonl", folder=tmp_path)
    assert done.returncode == 2
    assert "flash9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.jsonl").exists()


def test_show_names_lines_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps({"schema": 99}) + "\n")
    done = rls_bench("show", "r.jsonl", folder=tmp_path)
    assert "line 1: skipped" in done.stdout
    assert "no records" in done.stdout


def test_list_tells_what_this_machine_can_measure() -> None:
    printed = CliRunner().invoke(app, ["list"])
    assert printed.exit_code == 0
    for name in ("eager", "sdpa-cpu", "keyfold", "valuefold", "flex", "triton", "cpu", "unsteered"):
        assert name in printed.output


def test_doctor_names_what_is_missing_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    printed = CliRunner().invoke(app, ["doctor"], terminal_width=200)
    assert printed.exit_code == 0
    assert "no-such-compiler" in printed.output
    assert "apt-get install" in printed.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from rls_bench.cli.app import app; "
        "result = CliRunner().invoke(app, ['--help']); "
        "print(result.exit_code, [m for m in ('torch', 'pandas', 'numpy', 'scipy') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "0 []"

"""``rls-bench profile``: figures of a call here, of a report from elsewhere, and every refusal in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from probes import ncu_rep_file
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.errors import BackendUnsupported, ProbeUnavailable, ProfileError, UnknownProbe

SMALL = "H2 L16 D16 random"
DETAILS = (
    '\ufeff==PROF== Connected\n"ID","Kernel Name","CC","Metric Name","Metric Unit","Metric Value"\n'
    '"0","attend<[64]>(float *)","9.0","gpu__time_duration.sum","us","1.25"\n'
)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["profile", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_probes_of_one_call_as_json() -> None:
    figures = json.loads(
        run("eager", "--problem", SMALL, "--device", "cpu", "--probe", "memory", "--probe", "nsys", "--format", "json")
    )
    assert figures["memory"]["peak_bytes"] > 0
    assert figures["nsys"]["launches"] > 0


def test_a_table_names_what_is_missing_and_what_would_give_it(tmp_path: Path) -> None:
    path = tmp_path / "details.csv"
    path.write_text(DETAILS, encoding="utf-8")
    text = run("--import", str(path))
    assert "attend<[64]>(float *)" in text
    rows = {
        words[0]: " ".join(words[1:])
        for words in (line.replace("│", " ").split() for line in text.splitlines())
        if words
    }
    assert rows["duration_ns"] == "1.25 µs"
    assert rows["dram_bytes"] == "missing"
    assert rows["dram_bytes:"] == "dram__bytes.sum"
    assert rows["l2_hit_rate_percent:"].startswith("lts__t_sector_hit_rate.pct, lts__t_sectors_lookup_hit.sum")
    assert "duration_ns:" not in rows
    (command,) = [line for line in text.splitlines() if line.startswith("  ncu ")]
    assert "dram__bytes.sum" in command
    assert command.endswith("--export call.ncu-rep YOUR_COMMAND")


def test_json_keeps_figures_raw(tmp_path: Path) -> None:
    path = tmp_path / "details.csv"
    path.write_text(DETAILS, encoding="utf-8")
    (figures,) = json.loads(run("--import", str(path), "--format", "json")).values()
    assert (figures["duration_ns"], figures["dram_bytes"]) == (1250, None)


def test_a_functions_own_fault_is_no_fault_of_ours() -> None:
    with pytest.raises(ProfileError, match=r"RuntimeError: no such tile: .* \(faulty_backends.py:\d+\)"):
        run("faulty_backends:raises_as_a_function", "--problem", SMALL, "--device", "cpu", "--probe", "memory")


def test_a_report_is_read_kernel_by_kernel(tmp_path: Path) -> None:
    path = tmp_path / "call.ncu-rep"
    ncu_rep_file.write(path, [("a", {"gpu__time_duration.sum": 5.0}), ("b", {"gpu__time_duration.sum": 7.0})])
    figures = json.loads(run("--import", str(path), "--format", "json"))
    assert {title: measures["duration_ns"] for title, measures in figures.items()} == {"0: a": 5, "1: b": 7}
    assert figures["0: a"]["occupancy_percent"] is None


def test_a_suite_names_its_problems() -> None:
    figures = json.loads(
        run("eager", "--problem", "smoke:2", "--device", "cpu", "--probe", "memory", "--format", "json")
    )
    assert figures["memory"]["workspace_bytes"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "wanted a BACKEND to profile, or --import FILE"),
        (["eager", "--import", "x.csv"], "wanted a BACKEND to profile, or --import FILE"),
        (["eager", "--problem", "nope"], "or a suite: laptop, "),
        (["eager", "--problem", "smoke:99"], "numbers 1 to"),
        (["eager", "--problem", "heads=3"], "'heads=3' is no word for a problem"),
        (["eager", "--problem", "Hmany L16 D16"], "'Hmany' is no word for a problem"),
        (["eager", "--problem", "L7"], "got no word for query_heads"),
    ],
)
def test_bad_usage_is_told(words: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["profile", *words])
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())


def test_what_cannot_run_here_raises_and_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProbeUnavailable, match="probe ncu: Nsight Compute's ncu is not on PATH"):
        run("eager", "--problem", SMALL)
    with pytest.raises(UnknownProbe):
        run("eager", "--problem", SMALL, "--probe", "nope")
    with pytest.raises(BackendUnsupported, match="backend valuefold: "):
        run("valuefold", "--problem", SMALL + " λ[bhq]", "--device", "cpu", "--probe", "memory")

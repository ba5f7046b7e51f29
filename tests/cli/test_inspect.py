"""The command with its kernels replaced by one small kernel on one architecture, compiled for real once."""

import json
from dataclasses import replace

import pytest
from inspector.plain_cases import plain_case
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.inspector import cases, l2_sweep
from rls_bench.inspector.inspection import Inspection, Variant


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(monkeypatch, cache_home):
    def shipped(archs):
        found = []
        for arch in archs:
            for steered in (False, True):
                case = plain_case(arch, 128, steered)
                found.append(replace(case, variant=replace(case.variant, kernel="prefill")))
            found.append(replace(case, variant=Variant("prefill", 128, "bf16", is_causal=True)))
        return found

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setattr(cases, "shipped", shipped)
    monkeypatch.setattr(l2_sweep, "LENGTHS", (1024, 2048))

    def invoke(*arguments):
        return CliRunner().invoke(app, ["inspect", "--arch", "sm_80", *arguments])

    return invoke


def test_every_case_is_listed_with_its_tax(run):
    result = run()
    assert result.exit_code == 0, result.output
    assert "prefill D128 bf16 λ[scalar]" in result.output
    assert "steering +" in result.output
    assert "mma.sync" in result.output


def test_a_narrow_terminal_cuts_no_figure_short(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    output = run("--l2").output
    assert "…" not in output
    assert "128×64 w8 s2" in output


def test_the_replay_is_of_the_problem_in_words(run):
    result = run("--l2", "B2 H32/8 L1024 D128 bf16 causal")
    assert result.exit_code == 0, result.output
    assert "prefill, B2 H32/8 D128 bf16 causal, by number of keys" in result.output
    assert "2k" not in result.output.split("by number of keys")[1].split("A100")[0]
    for words, complaint in (
        ("B2 H32/8 L1024 D96 bf16 causal", "wanted a problem of one of prefill D128 bf16"),
        ("B1 H32/8 Lq1 Lk1024 D128 bf16", "wanted more than 16 queries"),
    ):
        assert complaint in str(run("--l2", words).exception)
    assert run("B1 H32/8 L1024 D128 bf16 causal").exit_code == 2
    assert run("--l2", "B1 H32/8 L1024 D128 bf16 casual").exit_code == 2


def test_models_are_labelled_and_claim_no_measurement(run):
    output = run("--l2").output
    assert output.count("MODEL, not measured") == 2
    assert "not measured yet" in output
    assert "a100-sxm-80gb, half of L2" in output


def test_the_json_holds_everything_found(run, tmp_path):
    path = tmp_path / "found.json"
    assert run("--json", str(path), "--l2").exit_code == 0
    found = json.loads(path.read_text())
    assert [one["variant"]["strength_layout"] for one in found["inspections"]] == ["none", "scalar", "scalar"]
    assert found["taxes"]["sm_80 prefill D128 bf16 λ[scalar]"][0]["of"] == "steering"
    assert {bar["name"] for bar in found["bars"]} >= {"spill bytes", "tensor path"}
    assert len(found["model_floors"]) == 1
    assert len(found["model_l2"]) == 2


def test_a_baseline_of_its_own_passes_and_a_better_one_fails(run, tmp_path):
    path = tmp_path / "baseline.json"
    run("--json", str(path))
    assert run("--baseline", str(path)).exit_code == 0
    listing = json.loads(path.read_text())
    for one in listing["inspections"]:
        one["hot_loops"][0]["instructions"] *= 0.95
    path.write_text(json.dumps(listing))
    result = run("--baseline", str(path))
    assert result.exit_code == 1
    assert "regression: sm_80 prefill D128 bf16 unsteered: instructions a score grew" in result.output
    assert run("--baseline", str(path), "--growth", "10").exit_code == 0


def test_a_selection_is_not_held_against_what_it_left_out(run, tmp_path):
    path = tmp_path / "baseline.json"
    run("--json", str(path))
    result = run("--only", "unsteered", "--baseline", str(path))
    assert result.exit_code == 0, result.output
    assert "1 cases" in result.output


def test_a_case_that_is_new_since_the_baseline_is_named(run, tmp_path):
    path = tmp_path / "baseline.json"
    run("--only", "unsteered", "--json", str(path))
    result = run("--baseline", str(path))
    assert result.exit_code == 0, result.output
    assert "2 cases are not in the baseline" in result.output
    assert "    sm_80 prefill D128 bf16 λ[scalar]" in result.output


def test_each_bar_says_how_many_cases_meet_it(run):
    assert "bar: spill bytes: met by 3 of 3" in run().output


def test_fresh_compiles_again(run, monkeypatch):
    asked = []

    def inspected(cases, workers, again, progress):
        asked.append((len(cases), again))
        return {index: Inspection(case.variant, case.arch, error="stop") for index, case in cases.items()}

    run()
    monkeypatch.setattr("rls_bench.inspector.workers._inspected", inspected)
    assert run().exit_code == 0
    run("--fresh")
    # λ as a scalar is compiled once for two of the three.
    assert asked == [(0, False), (2, True)]


def test_an_unknown_architecture_is_named_skipped_and_exits_with_2(run):
    result = run("--arch", "sm_70")
    assert result.exit_code == 2
    assert "sm_70: skipped: unknown; known are sm_80" in result.output
    assert "prefill D128 bf16 unsteered" in result.output


def test_an_architecture_that_triton_refuses_is_skipped_and_exits_with_2(run, monkeypatch):
    def refused(wanted, *_):
        return [Inspection(case.variant, case.arch, error="Triton cannot compile it") for case in wanted]

    monkeypatch.setattr("rls_bench.inspector.workers.inspect_all", refused)
    result = run()
    assert result.exit_code == 2
    assert "sm_80: skipped: Triton cannot compile it" in result.output


def test_a_word_that_no_case_has_is_an_error(run):
    result = run("--only", "sideways")
    assert result.exit_code != 0
    assert "no case of sm_80 has all of: sideways" in str(result.exception)


def test_the_hot_loop_can_be_read(run):
    output = run("--sass", "--only", "unsteered").output
    assert "hot loop" in output
    assert "HMMA.16816.F32.BF16" in output


def test_the_mix_can_be_read(run):
    assert "Hot loop, instructions a score by group" in run("--mix").output


def test_the_chart_is_an_image(run, tmp_path):
    from PIL import Image

    path = tmp_path / "new" / "l2.png"
    assert run("--chart", str(path)).exit_code == 0
    assert min(Image.open(path).size) > 400


def test_an_absent_baseline_ends_the_run_before_it_compiles(run, tmp_path, monkeypatch):
    monkeypatch.setattr("rls_bench.inspector.workers.inspect_all", lambda *_: pytest.fail("compiled"))
    result = run("--baseline", str(tmp_path / "none.json"))
    assert result.exit_code != 0
    assert "cannot be read" in str(result.exception)

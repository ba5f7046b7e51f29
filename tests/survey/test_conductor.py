"""A survey with stages of a line each: what fails or hangs costs itself alone, and a second survey goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rls_bench.errors import RlsBenchError
from rls_bench.survey import conductor, rows
from rls_bench.survey.conductor import PARTIAL
from rls_bench.survey.stages import Stage, share

LAST = Stage("last", 1.0, "the conclusion", least_seconds=0.5)


def stage(name: str, weight: float = 1.0, **options: object) -> Stage:
    return Stage(name, weight, name, **{"least_seconds": 0.2, **options})  # type: ignore[arg-type]


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs stages that are a line of Python each for some seconds; how each ended, by name."""
    monkeypatch.setattr(conductor, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(conductor, "_PAGE_SECONDS", 0.0)

    def run(
        lines: dict[Stage, str], seconds: float = 20.0, device: str = "cpu", began: float | None = None
    ) -> dict[str, tuple[str, str]]:
        stages = (*lines, LAST)
        monkeypatch.setattr(conductor, "STAGES", stages)
        monkeypatch.setattr(conductor, "LAST", LAST)
        monkeypatch.setattr("rls_bench.survey.stages.LAST", LAST)
        code = {each.name: line for each, line in {**lines, LAST: "pass"}.items()}
        monkeypatch.setattr(conductor, "command", lambda stage, *_: [sys.executable, "-c", code[stage.name]])
        ended = conductor.survey(tmp_path / "out", device, seconds / 60, began=began)
        return {row["stage"]: (row["status"], row["reason"]) for row in ended}

    return run


def test_what_fails_costs_itself_alone(survey: object) -> None:
    lines = {
        stage("raising"): "raise RuntimeError('no such kernel')",
        stage("crashing"): "import os; os.abort()",
        stage("partial"): f"print('3 of 7 are left'); raise SystemExit({PARTIAL})",
        stage("good"): "pass",
    }
    ended = survey(lines)  # type: ignore[operator]
    assert ended["raising"] == ("failed", "ended with 1: RuntimeError: no such kernel")
    assert ended["crashing"][1].startswith("died of SIGABRT")
    assert ended["partial"] == ("partial", "3 of 7 are left")
    assert ended["good"] == ended["last"] == ("ok", "")


def test_what_there_is_to_know_of_a_stage_is_its_last_line_of_this_time(survey: object) -> None:
    lines = {stage("noting"): "print('note: no pictures')", stage("mute"): "print('an old line'); raise SystemExit(1)"}
    ended = survey(lines)  # type: ignore[operator]
    assert ended["noting"] == ("ok", "no pictures")
    assert ended["mute"] == ("failed", "ended with 1: an old line")
    again = survey({**lines, stage("mute"): "raise SystemExit(1)"})  # type: ignore[operator]
    assert again["mute"] == ("failed", "ended with 1: it said nothing")


def test_what_hangs_is_ended_and_the_rest_has_its_time(survey: object) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    ended = survey({stage("deaf", 0.2): deaf, stage("good"): "pass"}, seconds=8.0)  # type: ignore[operator]
    # It would have slept for a minute.
    assert time.monotonic() - began < 30.0
    assert ended["deaf"][0] == "timeout"
    assert ended["good"] == ended["last"] == ("ok", "")


def test_a_second_survey_leaves_out_what_ended_well_and_concludes_anew(survey: object, tmp_path: Path) -> None:
    note = "open({path!r}, 'a').write('x')"
    marks = {name: tmp_path / name for name in ("good", "bad")}
    good, bad = stage("good"), stage("bad")
    first = {good: note.format(path=str(marks["good"])), bad: note.format(path=str(marks["bad"])) + "; 1 / 0"}
    assert survey(first)["bad"][0] == "failed"  # type: ignore[operator]
    second = {**first, bad: note.format(path=str(marks["bad"]))}
    assert survey(second)["bad"][0] == "ok"  # type: ignore[operator]
    assert [marks[name].read_text() for name in ("good", "bad")] == ["x", "xx"]
    concluded = [row for row in rows.read(tmp_path / "out" / "stages.jsonl") if row["stage"] == "last"]
    assert len(concluded) == 2


def test_what_needs_a_gpu_says_so(survey: object) -> None:
    ended = survey({stage("ncu", cuda_only="ncu sees GPUs alone"): "1 / 0"})  # type: ignore[operator]
    assert ended["ncu"] == ("not here", "ncu sees GPUs alone")


def test_without_time_a_stage_is_skipped_and_the_last_one_is_not(survey: object) -> None:
    ended = survey({stage("long", least_seconds=30.0): "pass"}, seconds=4.0)  # type: ignore[operator]
    assert ended["long"] == ("skipped", "less than the 30 s were left that it needs")
    assert ended["last"][0] == "ok"


def test_a_program_that_was_long_in_starting_has_as_much_less_for_its_stages_and_again_for_its_page(
    survey: object,
) -> None:
    # Of an hour, half an hour before the first stage; the page is given the other half.
    ended = survey({stage("good"): "pass"}, seconds=3600.0, began=time.monotonic() - 1800.0)  # type: ignore[operator]
    assert ended["good"] == ("skipped", "less than the 0 s were left that it needs")
    assert ended["last"][0] == "skipped"
    late = survey({stage("good"): "pass"}, seconds=3600.0, began=time.monotonic() - 900.0)  # type: ignore[operator]
    assert late["good"] == late["last"] == ("ok", "")


def test_what_not_even_a_kill_ends_is_left_behind(survey: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "_REAP_SECONDS", 0.1)
    held: list[int] = []
    monkeypatch.setattr("rls_bench.survey.conductor.os.killpg", lambda group, _: held.append(group))
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    lines = {stage("held", 0.2): deaf, stage("good"): "pass"}
    try:
        ended = survey(lines, seconds=8.0)  # type: ignore[operator]
    finally:
        monkeypatch.undo()
        for group in held:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
    assert ended["held"][0] == "timeout"
    assert ended["last"] == ("ok", "")


def test_what_works_beside_is_over_before_anything_is_measured(survey: object) -> None:
    lines = {stage("compile", 0.0, beside=True): "print('compiled')", stage("telling"): "pass"}
    assert survey(lines)["compile"] == ("ok", "")  # type: ignore[operator]


def test_a_folder_is_of_one_device(survey: object) -> None:
    survey({stage("good"): "pass"})  # type: ignore[operator]
    with pytest.raises(RlsBenchError, match="is of device cpu; wanted cuda"):
        survey({stage("good"): "pass"}, device="cuda")  # type: ignore[operator]


def test_time_is_shared_by_weight_and_the_last_stage_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rls_bench.survey.stages.LAST", LAST)
    heavy, light = stage("heavy", 3.0), stage("light", 1.0)
    assert share([heavy, light, LAST], 100.6) == pytest.approx(75.0)
    assert share([light, LAST], 100.6) == pytest.approx(100.0)
    assert share([LAST], 40.0) == 40.0
    assert share([heavy, LAST], 0.6) == 0.0
    # A stage that took all of its share and was a moment in dying.
    assert share([LAST], 100.6 - share([light, LAST], 100.6) - 0.09) == pytest.approx(0.51)


def test_a_torn_line_is_no_row_and_swallows_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    rows.append(path, {"a": 3})
    assert rows.read(path) == [{"a": 1}, {"a": 3}]
    assert rows.read(tmp_path / "none.jsonl") == []

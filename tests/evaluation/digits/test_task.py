import pandas as pd
import pytest
from typer.testing import CliRunner

from rls_bench.evaluation.digits.task import evaluate

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(seeds=(0,), items=60, log=lambda message: None)


def test_every_experiment_is_measured_on_every_set(evaluation):
    counts = evaluation.rows.groupby("experiment")["set"].value_counts().unstack()
    assert (counts.nunique(axis=1) == 1).all()
    assert counts["hard"].to_dict() == {"control": 4, "gate": 3, "heads": 3, "normalizer": 4, "strength": 7}


def test_bars_are_read_off_the_rows(evaluation):
    hard = evaluation.rows.query("experiment == 'heads' and setting == 'grounding' and set == 'hard'")
    bar = evaluation.bars[0]
    assert bar.what.startswith("hard, points")
    assert bar.got == f"{hard.gain.iloc[0]:.1f}"
    assert bar.met == (hard.gain.iloc[0] >= 8)


def test_a_bar_that_is_missed_says_so(evaluation):
    from rls_bench.evaluation.digits.report import report

    worse = evaluation.rows.assign(gain=-1.0, steered_share=50.0)
    missed = report(worse, {"zscore": 4.0}).bars
    assert [bar.met for bar in missed] == [False, True, False, False, False, True]


def test_another_draw_is_another_test_of_the_same_picks(evaluation):
    other = evaluate(seeds=(0,), items=60, draw=1, log=lambda message: None)
    picked = ["set", "experiment", "setting", "strength", "heads"]
    assert other.rows[picked].equals(evaluation.rows[picked])
    accuracies = other.rows.query("set == 'hard'").accuracy, evaluation.rows.query("set == 'hard'").accuracy
    assert not accuracies[0].equals(accuracies[1])


def test_more_items_calibrate_no_further(monkeypatch):
    from rls_bench.evaluation.digits import task

    monkeypatch.setattr(task, "ITEMS", 60)
    asked: list[tuple[str, int]] = []
    real = task._scene

    def scene(seed, name, split, items, *rest):
        asked.append((split, items))
        return real(seed, name, split, 12, *rest)

    monkeypatch.setattr(task, "_scene", scene)
    evaluate(seeds=(0,), items=90, log=lambda message: None)
    assert set(asked) == {("calibration", 40), ("test", 90)}


def test_a_draw_of_a_task_without_grids_is_refused():
    from rls_bench.cli.app import app

    result = CliRunner().invoke(app, ["evaluate", "conflict", "--draw", "1"])
    assert result.exit_code == 2
    assert "conflict draws no grids" in result.output


def test_the_command_writes_table_figure_and_section(tmp_path):
    from rls_bench.cli.app import app

    document = tmp_path / "steering.md"
    document.write_text("# Steering\n\nkept\n")
    arguments = ["evaluate", "digits", "--items", "10", "--out", str(tmp_path / "out"), "--document", str(document)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(tmp_path / "out" / "digits.csv")) == 3 * 4 * 21
    assert (tmp_path / "figures" / "digits.png").stat().st_size > 10_000
    text = document.read_text()
    assert "kept" in text
    assert "## Digits" in text

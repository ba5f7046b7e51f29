"""Workload files: what is written is read back, a bad entry is named, and the suites are such files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rls_bench.errors import ProblemError
from rls_bench.problems import suites, workload
from rls_bench.problems.grammar import parse
from rls_bench.problems.workload import Weighted, Workload, crossed


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.floats(1e-6, 1e9))
def test_what_is_written_is_read_back(about: str, name: str, weight: float) -> None:
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    problem = replace(parse("B8 H32/8 Lq1 Lk4096 D128 bf16 λ[h]"), name=name)
    wanted = Workload((Weighted(problem, weight), Weighted(parse("H4 L63 D64"))), about)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.toml"
        workload.write(path, wanted)
        assert workload.read(path) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problems = 3", "w.toml: no workload file: Expected `array`"),
        ("[[problem]]\nwords = ''", "w.toml: no workload file"),
        ("problems = []", r"wanted at least one \[\[problems\]\]"),
        ("[[problems]]\nwords = 'H4 L63 D64'\n[[problems]]\nwords = 'H4 L63'", "w.toml, problem 2: .*wanted D128"),
        ("[[problems]]\nwords = 'H4 L63 D64'\nweight = 0", "w.toml, problem 1: weight: wanted a number > 0; got 0"),
        ("[[problems]]\nwords = 'H4 L63 D64'\nweight = nan", "weight: wanted a number > 0; got nan"),
        ("[[problems]]\nwords = 'H4 L63 D64'\nwieght = 2", "unknown field `wieght`"),
        ("not toml", "w.toml: no workload file"),
    ],
)
def test_a_bad_file_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProblemError, match=message):
        workload.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"absent\.toml: wanted a workload file"):
        workload.read(tmp_path / "absent.toml")


def test_every_suite_says_what_it_is_for() -> None:
    assert {"smoke", "laptop", "laptop-bf16", "published", "standard", "long"} <= set(suites.names())
    assert all(suites.read(name).about and suites.get(name) for name in suites.names())


def test_axes_are_crossed_over_the_problems() -> None:
    decode, prefill = parse("H32/8 Lq1 Lk4096 D128 bf16"), parse("H9/3 L1024 D64 causal")
    found = [problem.title for problem in crossed([decode, prefill], {"batch": [1, 8], "length": [512, 2048]})]
    assert found[:4] == [f"B{b} H32/8 Lq1 Lk{n} D128 bf16" for b in (1, 8) for n in (512, 2048)]
    assert found[4:] == [f"B{b} H9/3 L{n} D64 fp32 causal" for b in (1, 8) for n in (512, 2048)]
    assert crossed([parse("H4 L63 D64"), parse("H4 L65 D64")], {"length": [128]}) == [parse("H4 L128 D64")]

"""Which problems ``run`` takes: in words, by suite, from a file, crossed with axes; and what it refuses at the door."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from rls_bench.choose.decision import problem_words
from rls_bench.cli.problem_argument import Selection, numbers, parse, select
from rls_bench.problems import suites

DECODE = "B8 H32/8 Lq1 Lk4096 D128 bf16"


def titles(selection: Selection) -> list[str]:
    return [problem.title for problem in selection.problems]


def test_words_suites_and_numbers_of_suites_are_problems() -> None:
    assert parse(DECODE, "cuda").device == "cuda"
    assert parse("smoke", "cpu") == suites.get("smoke")[0]
    assert parse("smoke:3", "cpu") == suites.get("smoke")[2]
    assert parse("SmolLM2 prefill: B1 H9/3 L1024 D64 bf16 causal", "cpu") == suites.get("standard")[0]


def test_what_was_asked_for_is_crossed_and_can_be_asked_for_again() -> None:
    found = select("cpu", problems=["H32/8 Lq1 Lk4096 D128 bf16"], batch="1,8", length="512,1024")
    assert titles(found) == [f"B{b} H32/8 Lq1 Lk{n} D128 bf16" for b in (1, 8) for n in (512, 1024)]
    assert found.words == "--problem 'H32/8 Lq1 Lk4096 D128 bf16' --batch 1,8 --length 512,1024"
    assert problem_words(found.words) == [found.words]
    assert problem_words("standard") == ["--suite standard"]
    assert problem_words("") == []


def test_a_workload_comes_the_weightiest_first(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(
        f"[[problems]]\nwords = 'H4 L63 D64'\n[[problems]]\nwords = '{DECODE}'\nweight = 2\n", encoding="utf-8"
    )
    found = select("cpu", workload=path)
    assert titles(found) == [DECODE, "B1 H4 L63 D64 fp32"]
    assert found.words == f"--workload {path}"


def test_without_a_word_it_is_the_machines_own_suite() -> None:
    assert select("cpu", default_suite="smoke") == select("cpu", suite="smoke")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"suite": "smoke", "problems": [DECODE]},
            "wanted one of --suite, --problem, --workload and --model; got --suite and",
        ),
        ({"suite": "huge"}, "suite: wanted one of"),
        ({"problems": [DECODE, "bf16 " + DECODE.replace(" bf16", "")]}, "is there twice"),
        ({"problems": ["smoke:9"]}, "numbers 1 to 7; got '9'"),
        ({"suite": "smoke", "batch": "1,none"}, "--batch: wanted numbers of 1 or more such as 1,8,64; got 'none'"),
        ({"suite": "smoke", "length": "0"}, "--length: wanted numbers of 1 or more"),
    ],
)
def test_bad_usage_is_refused_at_the_door(options: dict[str, object], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        select("cpu", **options)  # type: ignore[arg-type]


def test_a_word_that_may_be_meant_for_a_suite_is_told_the_suites() -> None:
    with pytest.raises(typer.BadParameter, match=r"no word for a problem.*; or a suite: laptop"):
        parse("standart", "cpu")


def test_numbers() -> None:
    assert numbers("--batch", "1, 8,64") == [1, 8, 64]
    assert numbers("--batch", "") == []

"""Requests replayed by continuous batching: no token is lost, no limit passed, and the calls are those of the steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.errors import ProblemError
from rls_bench.problems import models
from rls_bench.problems.models import Layers, Model
from rls_bench.traffic.replay import Chunk, Request, Step, calls, read, steps

MODEL = Model("m", 4, 2, 64, "bfloat16", (Layers(3),))


def test_two_requests_by_hand() -> None:
    found = list(steps([Request(5, 1, 3), Request(2, 0, 2)], max_batch=2, chunk=4))
    assert found == [
        Step(0, 0, (Chunk(4, 4),)),
        # The rest of the first prompt, which gives its first token, and the second one's.
        Step(0, 0, (Chunk(2, 6), Chunk(2, 2))),
        Step(2, 7, ()),
        Step(1, 8, ()),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(Request, st.integers(1, 60), st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(5, 40),
)
def test_no_token_is_lost_and_no_limit_passed(requests: list[Request], max_batch: int, chunk: int) -> None:
    found = list(steps(requests, max_batch=max_batch, chunk=chunk))
    assert sum(piece.queries for step in found for piece in step.chunks) == sum(r.prompt + r.image for r in requests)
    # The first token of each answer comes with its prompt.
    assert sum(step.decoding for step in found) == sum(request.output - 1 for request in requests)
    longest = max(request.prompt + request.image + request.output - 1 for request in requests)
    for step in found:
        assert step.decoding + len({*step.chunks}) <= max_batch or not step.chunks
        assert 0 < step.decoding + sum(piece.queries for piece in step.chunks) <= chunk
        assert step.longest <= longest
        assert all(piece.queries <= piece.keys for piece in step.chunks)


def test_each_layer_asks_every_call() -> None:
    found, left_out = calls(MODEL, [Request(5, 1, 3), Request(2, 0, 2)], max_batch=2, chunk=4)
    assert {problem.title: number for problem, number in found.items()} == {
        "B1 H4/2 L4 D64 bf16 causal": 3,
        "B1 H4/2 Lq2 Lk6 D64 bf16 causal": 3,
        "B1 H4/2 L2 D64 bf16 causal": 3,
        "B2 H4/2 Lq1 Lk7 D64 bf16 padded": 3,
        "B1 H4/2 Lq1 Lk8 D64 bf16": 3,
    }
    assert not left_out


def test_windows_are_left_out_of_prefill_by_name() -> None:
    found, left_out = calls(models.find("Gemma-3-4B"), [Request(2000, 0, 2)], max_batch=1, chunk=4096)
    assert {problem.title: number for problem, number in found.items()} == {
        "B1 H8/4 L2000 D256 bf16 causal": 5,
        "B1 H8/4 Lq1 Lk2001 D256 bf16": 5,
        "B1 H8/4 Lq1 Lk1024 D256 bf16": 29,
    }
    assert left_out == ["Gemma-3-4B: left out 29 calls of prefill in layers with a window of 1024 keys"]


def test_a_step_has_a_token_for_each_sequence() -> None:
    with pytest.raises(ValueError, match="chunk: wanted a token or more for each of 8 sequences; got 4"):
        next(steps([Request(1, 0, 1)], max_batch=8, chunk=4))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("prompt_tokens,image_tokens,output_tokens\n7,2,3\n", [Request(7, 2, 3)]),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023,374,44\n2023,9,0\n", [Request(374, 0, 44)]),
        ("Timestamp,Model,Request tokens,Response tokens,Total tokens\n5,GPT-4,472.0,18,490\n", [Request(472, 0, 18)]),
    ],
)
def test_published_traces_are_read(text: str, wanted: list[Request], tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    assert read(path) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted a header with prompt_tokens"),
        ("a,b\n1,2\n", "wanted a header with prompt_tokens"),
        ("prompt,output\n1,-2\n", "row 2: output tokens: wanted a number of 0 or more; got '-2'"),
        ("prompt,output\n1\n", "row 2: output tokens"),
        ("prompt,output\n", "wanted at least one request"),
    ],
)
def test_a_bad_file_is_refused_by_row(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProblemError, match=message):
        read(path)


def test_the_command_makes_a_workload_of_it(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rows = [f"{100 + 37 * n % 400},{n % 3 * 64},{5 + n % 20}" for n in range(40)]
    path.write_text("prompt_tokens,image_tokens,output_tokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    out = tmp_path / "w.toml"
    words = ["workload", str(path), "--model", "SmolLM2-135M", "--max-batch", "8", "--chunk", "256"]
    result = CliRunner().invoke(app, [*words, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["unit"] == "requests"
    assert len(found["representatives"]) == 12
    assert out.exists()
    assert "wanted beside a CSV file" in CliRunner().invoke(app, ["workload", str(out), "--model", "x"]).output
    assert "--model: wanted" in CliRunner().invoke(app, ["workload", str(path)]).output

"""What a process is asked is counted, shared in one file, and lost by no more than the interval."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import rls_bench
from rls_bench import record_workload
from rls_bench.errors import RecordError
from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem
from rls_bench.traffic import counting, recording, trace
from rls_bench.traffic.counting import Counts

DECODE = "B1 H4/2 Lq1 Lk8 D16 fp32"


class Watching(TorchDispatchMode):
    """Sees what is called, and lets it be."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        return function(*arguments, **(options or {}))


def tensors(length: int = 8) -> dict[str, torch.Tensor]:
    return {
        "query": torch.randn(1, 4, 1, 16),
        "key": torch.randn(1, 2, length, 16),
        "value": torch.randn(1, 2, length, 16),
        "bias": torch.randn(1, length),
    }


def titles(path: Path) -> dict[str, int]:
    return {problem.title: number for problem, number in trace.read(path).calls.items()}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "trace.jsonl"
    assert counting.active == ()


def test_the_operator_and_plans_are_counted_by_what_they_are_asked(path: Path) -> None:
    before = rls_bench.plan(**tensors(), enable_gqa=True, backend="eager")
    with record_workload(path):
        for _ in range(3):
            rls_bench.steered_attention(**tensors(), enable_gqa=True, backend="eager")
        rls_bench.steered_attention(**tensors(9), enable_gqa=True, backend="eager", eps=1e-3)
        given = tensors()
        for _ in range(4):
            before(given["query"], given["key"], given["value"])
    rls_bench.steered_attention(**tensors(), enable_gqa=True, backend="eager")
    assert titles(path) == {DECODE: 7, "B1 H4/2 Lq1 Lk9 D16 fp32 eps=0.001": 1}


def test_a_call_that_is_watched_counts_once(path: Path) -> None:
    plan = rls_bench.plan(**tensors(), enable_gqa=True, backend="eager")
    given = tensors()
    with record_workload(path), Watching():
        rls_bench.steered_attention(**tensors(), enable_gqa=True, backend="eager")
        plan(given["query"], given["key"], given["value"])
    assert titles(path) == {DECODE: 2}


def test_steered_models_are_counted_a_layer_and_prompts_a_sequence(path: Path) -> None:
    from tiny_models import build, saliency, tokens

    from rls_bench.integrations.transformers import steer

    model = build("llama")
    with record_workload(path), steer(model, bias=saliency(2), strength=1.0):
        model.generate(tokens(2, 10), max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    found = trace.read(path)
    assert found.requests == 2
    # Two layers; the first pass reads the prompt, two more decode.
    assert titles(path) == {
        "B2 H4/2 L10 D8 fp32 causal": 2,
        "B2 H4/2 Lq1 Lk11 D8 fp32": 2,
        "B2 H4/2 Lq1 Lk12 D8 fp32": 2,
    }


def test_threads_lose_no_count() -> None:
    counts, problem = Counts(), parse(DECODE)
    twins = [parse(DECODE) for _ in range(8)]

    def ask(own: Problem) -> None:
        for _ in range(5_000):
            counts.add(own)
            counts.add(problem)

    threads = [threading.Thread(target=ask, args=(twin,)) for twin in twins]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        # Looking meanwhile counts nothing.
        counts.read()
    assert counts.read()[0] == {problem: 80_000}
    assert counts.read()[0] == {problem: 80_000}


def test_contexts_may_be_nested(path: Path, tmp_path: Path) -> None:
    with record_workload(path):
        counting.count(parse(DECODE))
        with record_workload(tmp_path / "inner.jsonl"):
            counting.count(parse(DECODE))
    assert titles(path) == {DECODE: 2}
    assert titles(tmp_path / "inner.jsonl") == {DECODE: 1}


def test_a_problem_without_end_takes_room_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_EXACT", 256)
    monkeypatch.setattr(counting, "MOST_PROBLEMS", 512)
    counts = Counts()
    for length in range(1, 2000):
        counts.add(parse(f"H4 Lq1 Lk{length} D64"))
    found, uncounted, _ = counts.read()
    assert sum(found.values()) == 1999
    # 256 lengths exactly, and sixteen steps for each octave above.
    assert uncounted == 0
    assert 256 < len(found) < 256 + 64


def test_what_is_beyond_the_most_is_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_EXACT", 4)
    monkeypatch.setattr(counting, "MOST_PROBLEMS", 8)
    counts = Counts()
    for batch in range(1, 21):
        counts.add(parse(f"B{batch} H4 Lq1 Lk64 D64"))
    found, uncounted, _ = counts.read()
    assert (len(found), sum(found.values()), uncounted) == (8, 8, 12)


def test_rounding_keeps_what_a_problem_is() -> None:
    assert counting.rounded(parse("H4 L1000 D64")).title == "B1 H4 L992 D64 fp32"
    assert counting.rounded(parse("H4 Lq1 Lk1009 D64")).title == "B1 H4 Lq1 Lk1024 D64 fp32"
    for length in (*range(1, 200), 4097, 99_999):
        near = counting.rounded(parse(f"H4 L{length} D64")).key_length
        assert abs(near - length) <= length / counting.STEPS / 2 + 1


def test_a_forked_process_counts_for_itself(path: Path) -> None:
    with record_workload(path):
        for _ in range(3):
            counting.count(parse(DECODE))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                counting.count(parse(DECODE))
                recording._stop_all()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        counting.count(parse(DECODE))
    assert trace.read(path).processes == 2
    assert titles(path) == {DECODE: 5}


def test_what_changed_is_written_while_it_goes_on(path: Path) -> None:
    with record_workload(path, interval_seconds=0.01):
        counting.count(parse(DECODE))
        deadline = time.monotonic() + 30
        while not trace.read(path).calls and time.monotonic() < deadline:
            time.sleep(0.01)
        assert titles(path) == {DECODE: 1}
        lines = path.read_bytes()
        time.sleep(0.1)
        # Nothing was asked, so nothing is written.
        assert path.read_bytes() == lines


def test_a_torn_line_takes_no_other_with_it(path: Path) -> None:
    with record_workload(path):
        counting.count(parse(DECODE))
    whole = path.read_bytes()
    path.write_bytes(whole + b'\n{"process":"b","calls":{"cpu":{"B1 H4/2 Lq1 Lk8\xce')
    with record_workload(path):
        counting.count(parse(DECODE))
    found = trace.read(path)
    assert found.torn == 1
    assert found.why_torn
    assert titles(path) == {DECODE: 2}


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{" * 100_000,
        b'{"process":"a","began":0,"at":0,"calls":{"cpu":{"B1 L8":1}}}',
        b'{"process":"a","began":0,"at":0,"calls":{"cpu":{"H4 L8 D8":-1}}}',
        b'{"process":"a","began":0,"at":0,"calls":{},"schema":2}',
    ],
)
def test_a_file_that_is_none_is_refused(path: Path, line: bytes) -> None:
    path.write_bytes(line)
    with pytest.raises(RecordError, match="wanted lines that record_workload wrote; got none: "):
        trace.read(path)


def test_where_nothing_can_be_written_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"), record_workload(tmp_path / "absent" / "t.jsonl"):
        pass
    with pytest.raises(ValueError, match="interval_seconds: wanted a number > 0"):
        record_workload(tmp_path / "t.jsonl", interval_seconds=0).__enter__()
    with pytest.raises(RecordError, match="cannot be read"):
        trace.read(tmp_path / "absent.jsonl")


def test_a_full_disk_warns_and_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    append = trace.append
    with record_workload(path):
        counting.count(parse(DECODE))
        monkeypatch.setattr(trace, "append", full)
        with pytest.warns(recording.RecordingWarning, match="no space left"):
            recording._live[0].write()
        monkeypatch.setattr(trace, "append", append)
    assert titles(path) == {DECODE: 1}


def test_the_variable_records_a_whole_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(recording.VARIABLE, str(path))
    monkeypatch.setattr(recording, "_asked", False)
    plan = rls_bench.plan(**tensors(), enable_gqa=True, backend="eager")
    given = tensors()
    plan(given["query"], given["key"], given["value"])
    recording._stop_all()
    assert titles(path) == {DECODE: 1}


def test_a_variable_that_names_no_place_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(recording.VARIABLE, str(tmp_path / "absent" / "t.jsonl"))
    monkeypatch.setattr(recording, "_asked", False)
    with pytest.warns(recording.RecordingWarning, match="nothing is recorded"):
        rls_bench.plan(**tensors(), enable_gqa=True, backend="eager")
    assert counting.active == ()


INTERVAL = 0.3
# Counts until it is killed, and tells how far it is where its parent can look.
ENDLESS = f"""
import mmap, sys
from rls_bench import record_workload
from rls_bench.problems.grammar import parse
from rls_bench.traffic import counting

path, place, told = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "r+b")
shown = mmap.mmap(told.fileno(), 0)
problems = [parse(f"H4 Lq1 Lk{{64 + length}} D64") for length in range(50 * place, 50 * place + 50)]
with record_workload(path, interval_seconds={INTERVAL}):
    number = 0
    while True:
        counting.count(problems[number % 50])
        number += 1
        shown[8 * place : 8 * place + 8] = number.to_bytes(8, "little")
"""


@pytest.mark.slow
def test_killed_processes_lose_no_more_than_the_interval(tmp_path: Path) -> None:
    draw = random.Random(0)
    behind_seconds = []
    for turn in range(20):
        path, told = tmp_path / f"{turn}.jsonl", tmp_path / f"{turn}.bin"
        told.write_bytes(bytes(32))
        with open(told, "r+b") as file, mmap.mmap(file.fileno(), 0) as shown:

            def counted(shown: mmap.mmap = shown) -> list[int]:
                return [int.from_bytes(shown[8 * place : 8 * place + 8], "little") for place in range(4)]

            processes = [
                subprocess.Popen([sys.executable, "-c", ENDLESS, str(path), str(place), str(told)])
                for place in range(4)
            ]
            try:
                seen = [(time.time(), [0] * 4)]
                while not all(counted()):
                    assert all(process.poll() is None for process in processes)
                    time.sleep(0.01)
                # Moments, and what each process had counted then.
                until = time.time() + draw.uniform(0.0, 1.5)
                while time.time() < until:
                    seen.append((time.time(), counted()))
                    time.sleep(0.005)
            finally:
                for process in processes:
                    process.send_signal(signal.SIGKILL)
                for process in processes:
                    process.wait()
            killed, last = time.time(), counted()
        found = trace.read(path)
        assert found.processes == 4
        assert found.torn <= 4
        for place in range(4):
            own = range(64 + 50 * place, 64 + 50 * place + 50)
            recorded = sum(number for problem, number in found.calls.items() if problem.key_length in own)
            assert recorded <= last[place] + 1
            # When it had counted as many as are recorded; all since then is lost.
            behind_seconds.append(killed - max(at for at, by in seen if by[place] <= recorded))
    print(f"\nkilled processes lost at most {max(behind_seconds):.2f} s at an interval of {INTERVAL} s")
    # Room for a machine that is busy: the thread that writes waits for its turn.
    assert max(behind_seconds) < INTERVAL + 3

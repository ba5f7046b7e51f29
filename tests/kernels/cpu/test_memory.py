"""What one long call takes beyond inputs and output, against its bar."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# What is packed doesn't depend on the number of queries, and few of them take little time.
CODE = """
from benchmarks import cpu_bars
{before}
print(cpu_bars.memory_bar(query_length=480).found)
"""
# What a kernel that kept twice as much for the same call would look like from outside.
HOARD = """
prepared = cpu_bars.prepared
def hoarding(backend, problem):
    call = prepared(backend, problem)
    return lambda: (call(), bytearray(b"x") * (problem.key_length * 64 * 8))
cpu_bars.prepared = hoarding
"""


def sizes_of_key_and_value(before: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(before=before)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


@pytest.mark.parametrize(("before", "within"), [("", True), (HOARD, False)])
def test_a_long_call_keeps_to_the_bar(before: str, within: bool) -> None:
    assert (sizes_of_key_and_value(before) <= 2.0) is within

"""One device: a fresh process a task, without what Ray adds for its own workers."""

from __future__ import annotations

import os
import sys

from rls_bench.fleet.agent import Agent, environment


def test_a_task_gets_its_plan_and_gives_its_answer() -> None:
    echo = (sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
    done = Agent(True, echo).measure(b"plan")
    assert (done.code, done.records, done.reason) == (0, b"nalp", "")
    assert done.pid != os.getpid()


def test_a_task_that_crashes_says_why() -> None:
    crash = (sys.executable, "-c", "import sys; sys.stderr.write('Traceback\\nboom\\n'); sys.exit(3)")
    done = Agent(True, crash).measure(b"")
    assert (done.code, done.records, done.reason) == (3, b"", "ended with 3: boom")


def test_a_task_that_hangs_is_ended() -> None:
    hang = (sys.executable, "-c", "import time; time.sleep(600)")
    done = Agent(True, hang, 0.2).measure(b"")
    assert done.code != 0
    assert done.reason == "no answer within 0.2 s"


def test_what_ray_set_is_taken_back() -> None:
    here = {"RAY_RAYLET_PID": str(os.getpid()), "RAY_JOB_ID": "1", "OMP_NUM_THREADS": "1", "OTHER": "kept"}
    given = environment({**here, "CUDA_VISIBLE_DEVICES": "3"}, False)
    assert given["OTHER"] == "kept"
    assert given["CUDA_VISIBLE_DEVICES"] == "3"
    assert given.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
    assert not [name for name in given if name.startswith("RAY_")]


def test_a_gpu_that_ray_does_not_count_is_not_hidden() -> None:
    here = {"RAY_RAYLET_PID": str(os.getpid()), "CUDA_VISIBLE_DEVICES": ""}
    assert environment(here, False).get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_processor_s_task_sees_no_gpu() -> None:
    assert environment({"CUDA_VISIBLE_DEVICES": "0"}, True)["CUDA_VISIBLE_DEVICES"] == ""

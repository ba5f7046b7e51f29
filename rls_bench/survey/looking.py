"""The stages that look at the machine and at single calls: doctor, compiler, tuning, Nsight Compute, memory checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rls_bench.problems.problem import Problem
from rls_bench.runner import kin
from rls_bench.survey import rows
from rls_bench.survey import telling as chosen

if TYPE_CHECKING:
    from rls_bench.survey.work import Task

# Backends that compile as they prepare a problem.
_COMPILING = {"cuda": ("triton", "flex"), "cpu": ("cpu", "flex")}
_PROFILED = 2
_LAST_WORDS = 200


def doctor(task: Task) -> str:
    """What ``rls-bench doctor`` finds, and the fingerprint that every record has."""
    import msgspec

    from rls_bench.machines import host

    (task.out / "machine.json").write_bytes(msgspec.json.encode(host.current()))
    line = [sys.executable, "-m", "rls_bench", "doctor", "--json"]
    try:
        # It proves every backend, which may have to be compiled for that.
        with (task.out / "doctor.json").open("wb") as file:
            done = subprocess.run(kin.mortal(line), stdout=file, timeout=max(1.0, task.left))
    except subprocess.TimeoutExpired:
        return "proving every backend took longer than there was"
    return f"doctor ended with {done.returncode}" if done.returncode else ""


def compile_all(task: Task) -> str:
    """Call every compiling backend once on each telling problem, on all cores at once: what it compiles is kept."""
    from rls_bench.backends import registry
    from rls_bench.probes import one_call

    with tempfile.TemporaryDirectory() as elsewhere:
        # Block sizes that are tuned beside others are none: they are kept where nobody looks.
        cuda_only = {"XDG_CACHE_HOME": elsewhere} if task.device == "cuda" else {}
        kernels = {"TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "cache"))}

        def compiled(name: str, problem: Problem) -> str:
            line = one_call.command(name, problem)
            environment = {**os.environ, **kernels, **cuda_only, **registry.get(name).environment()}
            return _ended(line, environment, task.left)

        calls = [
            (name, problem)
            for problem in chosen.problems(task.device)
            for name in _COMPILING[task.device]
            if registry.get(name).available() and registry.get(name).supports(problem)
        ]
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1)) as pool:
            faults = list(pool.map(lambda call: compiled(*call), calls))
    for (name, problem), fault in zip(calls, faults, strict=True):
        if fault:
            print(f"{name}, {problem.title}: {fault}")
    failed = sum(map(bool, faults))
    return f"{failed} of {len(calls)} calls did not get through" if failed else ""


def tune(task: Task) -> str:
    """Measure the candidates of our prefill kernel for every telling problem; the launcher keeps the fastest."""
    from rls_kernels.triton import attention

    from rls_bench.problems.draw import draw

    path = task.out / "tuning.jsonl"
    known = {row["problem"] for row in rows.read(path)}
    todo = [problem for problem in chosen.tuned(task.device) if problem.title not in known]
    for number, problem in enumerate(todo):
        if task.left <= 0:
            return f"{len(todo) - number} of {len(todo)} problems are left"
        began = time.monotonic()
        inputs = draw(problem)
        tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength, inputs.key_lengths)
        options = {"eps": problem.eps, "is_causal": problem.is_causal, "return_stats": problem.return_stats}
        attention.tune(*tensors, scale=inputs.scale, **options)  # type: ignore[arg-type]
        rows.append(path, {"problem": problem.title, "seconds": round(time.monotonic() - began, 1)})
    return ""


def profile(task: Task) -> str:
    """Nsight Compute on the fastest right backend and on ours, beside the model of ours, on the first problems."""
    from rls_bench.errors import ProbeError
    from rls_bench.probes import registry
    from rls_bench.survey.page import winner

    path = task.out / "profile.jsonl"
    known = {(row["problem"], row["backend"]) for row in rows.read(path)}
    for problem in chosen.problems(task.device)[:_PROFILED]:
        for name in dict.fromkeys((winner(task.out, problem) or "triton", "triton")):
            if (problem.title, name) in known:
                continue
            if task.left <= 0:
                return "not every winner was profiled"
            row: rows.Row = {"problem": problem.title, "backend": name}
            for probe in ("ncu", "model"):
                try:
                    # Both prepare the call themselves.
                    row |= {probe: registry.observe(probe, _nothing, name, problem)}
                except ProbeError as error:
                    row |= {probe: {"reason": str(error)}}
            rows.append(path, row)
    return ""


def memory(task: Task) -> str:
    """compute-sanitizer's memory checker on one call of each of our kernels."""
    from rls_bench.probes import one_call

    path = task.out / "memory.jsonl"
    if shutil.which("compute-sanitizer") is None:
        rows.append(path, {"problem": "", "fault": "compute-sanitizer is not on PATH"})
        return ""
    known = {row["problem"] for row in rows.read(path)}
    for problem in [case for case in _few_cases() if case.name not in known]:
        if task.left <= 0:
            return "not every kernel was watched"
        line = [
            "compute-sanitizer",
            "--tool",
            "memcheck",
            "--error-exitcode",
            "86",
            *one_call.command("triton", problem),
        ]
        # Torch's own pool would hide what lies between two tensors.
        fault = _ended(line, {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, task.left)
        rows.append(path, {"problem": problem.name, "fault": fault})
    return ""


def _few_cases() -> list[Problem]:
    """One case of each kernel: plain, eps, statistics, decode."""
    from rls_bench.agreement import branches

    cases = branches.cases("cuda", branches.groups()[0])
    wanted = ("plain", "eps", "statistics", "decode")
    return [case for case in cases if case.name.partition(": ")[2] in wanted]


def _nothing() -> None: ...


def _ended(line: list[str], environment: dict[str, str], seconds: float) -> str:
    """What went wrong with a process that had ``seconds``, or an empty string."""
    if seconds <= 0:
        return "no time was left"
    # Not a pipe: a compiler that outlives its killed parent would hold it open.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(kin.mortal(line), env=environment, stdout=said, stderr=said, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"no end within {seconds:.0f} s"
        said.seek(0)
        last = [text.strip() for text in said.read().decode(errors="replace").splitlines() if text.strip()][-1:]
    return f"ended with {done.returncode}: {''.join(last)[:_LAST_WORDS]}" if done.returncode else ""

"""Backends for tests of the harness, named ``fakes:HEALTHY`` and so on; each bad one has a single fault.

``fakes:SLOW`` and its like differ from ``HEALTHY`` in nothing but a wait, so that a test knows what to expect.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


def attention(inputs: Inputs) -> Tensor:
    """Steered attention for eps = 0, all keys visible, no groups: [B, H, Lq, Dv]."""
    scores = inputs.scale * inputs.query @ inputs.key.mT + inputs.logit_bias()
    return torch.softmax(scores, -1) @ inputs.value


class Healthy(Backend):
    """Does what it should."""

    name = "healthy"
    summary = "a healthy fake"

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: self.call(inputs)

    def call(self, inputs: Inputs) -> Any:
        return attention(inputs)


class Compiling(Healthy):
    """Says that it is long in getting ready."""

    compiles = True


class Crash(Healthy):
    def call(self, inputs: Inputs) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)


class Killed(Healthy):
    def call(self, inputs: Inputs) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class LateCrash(Healthy):
    """Passes every check and dies while it is timed."""

    calls = 0

    def call(self, inputs: Inputs) -> Any:
        self.calls += 1
        if self.calls > 60:
            os.kill(os.getpid(), signal.SIGSEGV)
        return attention(inputs)


class Hang(Healthy):
    def call(self, inputs: Inputs) -> Any:
        time.sleep(3600)


class Exit(Healthy):
    def call(self, inputs: Inputs) -> Any:
        sys.exit(3)


class HardExit(Healthy):
    def call(self, inputs: Inputs) -> Any:
        os._exit(3)


class DeviceFault(Healthy):
    """Ends as torch does after a CUDA error: the error, then advice that is always the same."""

    def call(self, inputs: Inputs) -> Any:
        print("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", file=sys.stderr)
        print("Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda for more.", file=sys.stderr)
        print("CUDA kernel errors might be asynchronously reported at some other API call.", file=sys.stderr)
        print("For debugging consider passing CUDA_LAUNCH_BLOCKING=1", file=sys.stderr)
        print("Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.", file=sys.stderr, flush=True)
        os._exit(1)


class OutOfMemory(Healthy):
    def call(self, inputs: Inputs) -> Any:
        return torch.empty(1 << 60)


class Raises(Healthy):
    def call(self, inputs: Inputs) -> Any:
        raise RuntimeError("no kernel image")


class Lacking(Healthy):
    """Finds only as it prepares that this machine lacks what it needs, as where a compiler fails."""

    def prepare(self, inputs: Inputs) -> Call:
        raise BackendUnavailable("the compiler could not compile the kernel: fatal error: no space")


class Declining(Healthy):
    """Finds only as it prepares that it cannot do the problem."""

    def prepare(self, inputs: Inputs) -> Call:
        raise BackendUnsupported("backend 'declining': wanted other numbers")


class Crowded(Healthy):
    """Has a compiler that finds the disk full, and wraps that in an error of its own."""

    def prepare(self, inputs: Inputs) -> Call:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/kernel.o")
        except OSError as error:
            raise RuntimeError("the graph cannot be compiled") from error


class Wrong(Healthy):
    def call(self, inputs: Inputs) -> Any:
        return 1.1 * attention(inputs)


class NotANumber(Healthy):
    def call(self, inputs: Inputs) -> Any:
        output = attention(inputs)
        output[0, 0, 0, 0] = torch.nan
        return output


class Unwritten(Healthy):
    """Leaves the last row of its output as it found it."""

    def call(self, inputs: Inputs) -> Any:
        whole = attention(inputs)
        output = torch.empty_like(whole)
        output[:, :, :-1] = whole[:, :, :-1]
        return output


class Mutating(Healthy):
    def call(self, inputs: Inputs) -> Any:
        output = attention(inputs)
        inputs.key.mul_(2)
        return output


class Noisy(Healthy):
    """Right and quick enough, but talkative."""

    def call(self, inputs: Inputs) -> Any:
        print('{"type": "Sampled"}')
        return attention(inputs)


class Forking(Healthy):
    """Forks in its eighth call; the child goes on as if it were the worker."""

    calls = 0

    def call(self, inputs: Inputs) -> Any:
        self.calls += 1
        if self.calls == 8:
            os.fork()
        return attention(inputs)


class Lingering(Healthy):
    """Leaves a sleeping child behind in each call."""

    def call(self, inputs: Inputs) -> Any:
        if os.fork() == 0:
            time.sleep(3600)
        return attention(inputs)


class Caching(Healthy):
    """Keeps results by the address of their input."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def call(self, inputs: Inputs) -> Any:
        place = inputs.query.data_ptr()
        if place not in self._kept:
            self._kept[place] = attention(inputs)
        return self._kept[place].clone()


class CachingByShape(Caching):
    """Keeps results by the shape of their input, and notices only where the query changes sign."""

    def call(self, inputs: Inputs) -> Any:
        first = hash((inputs.problem.title, float(inputs.query.sum()) < 0))
        if first not in self._kept:
            self._kept[first] = attention(inputs)
        return self._kept[first].clone()


class Threading(Healthy):
    """Returns at once, but for the agreement check; a thread of its own does the work."""

    def call(self, inputs: Inputs) -> Any:
        output = torch.zeros_like(inputs.query)

        def work() -> None:
            time.sleep(0.005)
            output.copy_(attention(inputs))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        if _called_by("rls_bench.agreement.judgement"):
            thread.join()
        return output


class Overwriting(Healthy):
    """Every output lies in the same memory."""

    def prepare(self, inputs: Inputs) -> Call:
        output = torch.empty_like(inputs.query)
        return lambda: output.copy_(attention(inputs))


class InPlace(Healthy):
    """Writes its output over its query, but for the agreement check."""

    def prepare(self, inputs: Inputs) -> Call:
        query = inputs.query.clone()

        def call() -> Tensor:
            if _called_by("rls_bench.agreement.judgement"):
                return attention(inputs)
            inputs.query.copy_(query)
            return inputs.query.copy_(attention(inputs))

        return call


class Patching(Healthy):
    """Slows the clock down."""

    def call(self, inputs: Inputs) -> Any:
        time.perf_counter_ns = lambda: 0
        return attention(inputs)


class Impostor(Healthy):
    """Names a kernel that never runs."""

    kernels = ("cutlass_fmha",)


class Cheating(Healthy):
    """Is right until it is timed, and then returns zeros."""

    def call(self, inputs: Inputs) -> Any:
        return torch.zeros_like(inputs.query) if _called_by("rls_bench.timing.stopwatch") else attention(inputs)


class Unavailable(Healthy):
    def available(self) -> Support:
        return no("needs a quantum computer")


class Unsupported(Healthy):
    def supports(self, problem: Problem) -> Support:
        return no("head dims must be prime")


class Wanting(Healthy):
    """Works only where its variable was set before the process started."""

    def environment(self) -> dict[str, str]:
        return {"RLS_BENCH_FAKE": "1"}

    def prepare(self, inputs: Inputs) -> Call:
        if b"RLS_BENCH_FAKE=1" not in Path("/proc/self/environ").read_bytes().split(b"\0"):
            raise RuntimeError("RLS_BENCH_FAKE was not set")
        return super().prepare(inputs)


class Unmeasurable(Healthy):
    """Agrees, but its latency would mean nothing."""

    kernels = ("never seen",)

    def measurable(self) -> Support:
        return no("runs in an interpreter")


class Waiting(Healthy):
    """Takes at least ``seconds``, by waiting busily."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def call(self, inputs: Inputs) -> Any:
        end = time.perf_counter() + self.seconds
        output = attention(inputs)
        while time.perf_counter() < end:
            pass
        return output


def _called_by(module: str) -> bool:
    """Whether a function of ``module`` is among the callers."""
    frame = sys._getframe(1)
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") == module:
            return True
    return False


HEALTHY = Healthy()
COMPILING = Compiling()
CRASH = Crash()
KILLED = Killed()
LATE_CRASH = LateCrash()
HANG = Hang()
EXIT = Exit()
HARD_EXIT = HardExit()
DEVICE_FAULT = DeviceFault()
OUT_OF_MEMORY = OutOfMemory()
RAISES = Raises()
LACKING = Lacking()
DECLINING = Declining()
CROWDED = Crowded()
WRONG = Wrong()
NOT_A_NUMBER = NotANumber()
UNWRITTEN = Unwritten()
MUTATING = Mutating()
NOISY = Noisy()
FORKING = Forking()
LINGERING = Lingering()
CACHING = Caching()
CACHING_BY_SHAPE = CachingByShape()
THREADING = Threading()
OVERWRITING = Overwriting()
IN_PLACE = InPlace()
PATCHING = Patching()
IMPOSTOR = Impostor()
CHEATING = Cheating()
UNAVAILABLE = Unavailable()
UNSUPPORTED = Unsupported()
WANTING = Wanting()
UNMEASURABLE = Unmeasurable()
QUICK = Waiting(0.002)
SLOW = Waiting(0.004)
STEADY = Waiting(0.0100)
STEADY_TOO = Waiting(0.0100)
FIVE_PERCENT_SLOWER = Waiting(0.0105)

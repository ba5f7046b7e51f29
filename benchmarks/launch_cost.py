"""What a Triton launch costs the host, without a GPU: ``python -m benchmarks.launch_cost`` prints it against its bars.

A stand-in driver takes what would be launched and runs nothing. Beside a plan's call stands the launch of an empty
kernel of four arguments, in the same turns; ``host_cost`` has the ways that run on a CPU.
"""

import sys
from statistics import median

import torch
import triton

from benchmarks.host_cost import in_turns
from benchmarks.standin_driver import Standin

# Query and key length; B 1, heads 32/8, D 128, bfloat16. Decode launches two kernels.
SIZES = {"prefill": (1024, 1024), "decode": (1, 4096)}
BARS = {"prefill": 2.0, "decode": 3.0}


@triton.jit
def empty_kernel(source, target, scale, length):
    """Takes two tensors and two numbers, and does nothing."""


def planned(size):
    """A plan's call, as on a GPU, but for the question whether its tensors lie there."""
    from rls_bench.backends.triton import BACKEND, Direct
    from rls_bench.planning.plan import likeness_of
    from rls_bench.planning.watching import is_watched
    from rls_bench.problems.draw import draw
    from rls_bench.problems.problem import Problem

    query_length, key_length = SIZES[size]
    problem = Problem(1, 32, 8, query_length, key_length, 128, 128, "bfloat16", inputs="random")
    inputs = draw(problem)
    bias, strength = inputs.bias[:, 0].contiguous(), 1.5
    launch = Direct(BACKEND, inputs, False)
    likeness = likeness_of(inputs.query, inputs.key, inputs.value, bias, strength)

    def call():
        if is_watched() or not likeness.holds(inputs.query, inputs.key, inputs.value, bias):
            raise RuntimeError("a plan would have refused this call")
        return launch.run(inputs.query, inputs.key, inputs.value, launch.steer(bias, strength, None))

    return call


def measure(rounds=60, burst=50):
    """Microseconds a call on one thread, a figure a turn, by name; "empty" is the empty kernel's."""
    from rls_kernels.triton import forward

    standin, before, architecture = Standin(), triton.runtime.driver._active, forward.architecture
    standin.is_recording = False
    triton.runtime.driver.set_active(standin)
    forward.architecture = lambda device: 90
    try:
        tensor = torch.zeros(64)
        calls = {"empty": lambda: empty_kernel[(1,)](tensor, tensor, 0.125, 64)}
        with torch.no_grad():
            calls |= {size: planned(size) for size in SIZES}
            return in_turns(calls, rounds, burst)
    finally:
        triton.runtime.driver._active, forward.architecture = before, architecture
        forward.prepared.cache_clear()


def main():
    """Print each figure; 1 where a bar is missed."""
    taken_us = measure()
    print(f"empty kernel of 4 arguments {median(taken_us['empty']):8.1f} µs   1.00 ×")
    missed = 0
    for size, bar in BARS.items():
        ratio = median(us / line for us, line in zip(taken_us[size], taken_us["empty"], strict=True))
        is_met = ratio <= bar
        missed += not is_met
        verdict = "met" if is_met else "MISSED"
        print(f"{size:27}{median(taken_us[size]):9.1f} µs{ratio:7.2f} ×  bar {bar:g} ×  {verdict}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())

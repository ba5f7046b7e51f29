"""How many Triton kernels a suite has compiled, without a GPU: ``python -m benchmarks.kernels_compiled`` lists them.

A stand-in driver takes what would be launched, and Triton is told that somebody else compiles: each kernel is counted
by what it is specialised on, and none is made.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import triton

from benchmarks.standin_driver import Standin

BARS = {"published": 6, "conformance": 30}


@contextmanager
def on_an_h100():
    """Launches go to an H100 that runs nothing; yields a set that fills with (kernel, what it is specialised on)."""
    from rls_kernels.triton import forward, gradients

    found = set()

    def take(*, key, fn, **_):
        found.add((fn.name, key))
        return True

    modules, before = (forward, gradients), triton.runtime.driver._active
    kernels = [value for module in modules for value in vars(module).values() if hasattr(value, "device_caches")]
    asked = [(forward, "architecture", 90), (gradients, "architecture", 90), (forward, "multiprocessors", 132)]
    kept = [getattr(module, name) for module, name, _ in asked]
    for module, name, answer in asked:
        setattr(module, name, lambda device, answer=answer: answer)
    triton.runtime.driver.set_active(Standin())
    try:
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.jit_cache_hook = take
            _forget(kernels)
            yield found
    finally:
        triton.runtime.driver._active = before
        for (module, name, _), function in zip(asked, kept, strict=True):
            setattr(module, name, function)
        _forget(kernels)


def _forget(kernels):
    """Drop what was prepared and compiled for another driver."""
    from rls_kernels.triton import forward

    forward.prepared.cache_clear()
    for kernel in kernels:
        kernel.device_caches.clear()


def launch(problem):
    """Launch what the backend would for ``problem``: a call, and one with its gradients where they are asked for."""
    from rls_kernels.triton import attention

    from rls_bench.problems.draw import draw

    inputs = draw(replace(problem, device="cpu"))
    tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength)
    options = {"eps": problem.eps, "is_causal": problem.is_causal, "return_stats": problem.return_stats}
    attention.prepare(*tensors, inputs.key_lengths, scale=inputs.scale, **options)(*tensors, inputs.key_lengths)
    if problem.requires_grad:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        out, _ = attention.steered_attention(*leaves, inputs.key_lengths, scale=inputs.scale, **options)
        out.sum().backward()


def compiled(problems):
    """Names of the kernels that ``problems`` have compiled, one for each time that one is compiled."""
    with on_an_h100() as found:
        for problem in problems:
            launch(problem)
        return [name for name, _ in found]


def asked():
    """The problems by the name of their bar."""
    from rls_bench.agreement import conformance
    from rls_bench.problems import suites

    return {"published": suites.get("published", "cpu"), "conformance": conformance.all_cases("cpu")}


def main():
    """Print each count with its kernels; 1 where a bar is missed."""
    missed = 0
    for name, problems in asked().items():
        kernels = Counter(compiled(problems))
        verdict = "met" if kernels.total() <= BARS[name] else "MISSED"
        missed += verdict == "MISSED"
        each = ", ".join(f"{kernel} {times}" for kernel, times in sorted(kernels.items()))
        print(f"{name:12}{kernels.total():4} kernels  bar {BARS[name]:3}  {verdict}: {each}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())

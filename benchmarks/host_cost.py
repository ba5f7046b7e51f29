"""What a call costs its caller, on one thread: ``python -m benchmarks.host_cost`` prints it against its bars.

A short call is all host cost. A user's own line, ``scaled_dot_product_attention`` with the mask λ b made in the call,
stands beside every way to make that call through the operator. All are timed in turns of drawn order, a burst of each,
by the thread's CPU time, which other jobs stretch less; a figure is a median, and a ratio one over that line's in the
same turn.
"""

import random
import sys
import time
from statistics import median

# The ways that the main function holds against a bar; "sdpa" is the user's line.
WAYS = [
    "sdpa",
    "auto",
    "cpu",
    "sdpa-cpu",
    "plan cpu",
    "plan cpu, kept bias",
    "plan sdpa-cpu",
    "plan sdpa-cpu, kept bias",
    "eager",
    "compiled sdpa",
    "compiled auto",
]
# batch, query heads, kv heads, keys, head dim; one query each.
SIZES = {"short": (1, 1, 1, 17, 16), "smollm2 decode": (1, 9, 3, 512, 64)}
BARS = {
    ("short", "auto"): 1.25,
    ("short", "cpu"): 1.25,
    ("short", "sdpa-cpu"): 1.6,
    ("short", "plan sdpa-cpu"): 1.1,
    ("short", "plan cpu"): 0.7,
    ("smollm2 decode", "auto"): 0.6,
}
STRENGTH = 1.5


def prepared(size, way):
    """The call itself, with what it is given, made beforehand."""
    import torch
    import torch.nn.functional as F

    from rls_bench import plan, steered_attention

    batch, heads, kv_heads, keys, dim = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, heads, 1, dim, generator=generator)
    key, value = torch.randn(2, batch, kv_heads, keys, dim, generator=generator).unbind()
    bias = torch.rand(batch, keys, generator=generator)
    grouped = heads != kv_heads

    def by_hand(query, key, value, bias, strength):
        mask = (strength * bias)[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)

    def by_auto(query, key, value, bias, strength):
        return steered_attention(query, key, value, bias, strength, enable_gqa=grouped)

    if way.startswith("compiled"):
        # Host cost alone is asked for: no code need be generated, the trace and its guards are what a call pays.
        traced = torch.compile(by_hand if way == "compiled sdpa" else by_auto, backend="eager", dynamic=True)
        return lambda: traced(query, key, value, bias, STRENGTH)
    if way == "sdpa":
        return lambda: by_hand(query, key, value, bias, STRENGTH)
    if way == "auto":
        return lambda: by_auto(query, key, value, bias, STRENGTH)
    if not way.startswith("plan"):
        return lambda: steered_attention(query, key, value, bias, STRENGTH, enable_gqa=grouped, backend=way)
    backend = way.removeprefix("plan ").removesuffix(", kept bias")
    planned = plan(query, key, value, bias, STRENGTH, enable_gqa=grouped, backend=backend)
    if way.endswith("kept bias"):
        return lambda: planned(query, key, value)
    return lambda: planned(query, key, value, bias, STRENGTH)


class HostCost:
    """asv times a call as it times any other; what it compares is a commit with another."""

    params = (list(SIZES), WAYS)
    param_names = ("size", "way")
    timeout = 300
    version = "1"
    # A process spends seconds on importing torch, and microseconds on the calls.
    rounds = 1

    def setup(self, size, way):
        """Two calls: the first decides, the second may still compile."""
        import torch

        torch.set_num_threads(1)
        self.call = prepared(size, way)
        self.call()
        self.call()

    def time_call(self, size, way):
        """From Python's call to its result, which on a CPU has the kernel in it."""
        self.call()


def in_turns(calls, rounds, burst):
    """Microseconds a call of each, a figure a turn, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken_us = {way: [] for way in calls}
        for call in calls.values():
            for _ in range(burst):
                call()
        order = random.Random(0)
        for _ in range(rounds):
            # What ran before leaves the caches to who comes next: nobody always comes after the same.
            for way, call in order.sample(list(calls.items()), len(calls)):
                start_ns = time.thread_time_ns()
                for _ in range(burst):
                    call()
                taken_us[way].append((time.thread_time_ns() - start_ns) / burst / 1e3)
    finally:
        torch.set_num_threads(threads)
    return taken_us


def measure(size, ways=WAYS, rounds=60, burst=50):
    """Microseconds a call of each way, as ``in_turns`` takes them."""
    return in_turns({way: prepared(size, way) for way in ways}, rounds, burst)


def main():
    """Print every way's figure; 1 where a bar is missed."""
    missed = 0
    for size in SIZES:
        taken_us = measure(size)
        print(f"{size}: B {SIZES[size][0]}, heads {SIZES[size][1]}/{SIZES[size][2]}, {SIZES[size][3]} keys")
        for way, taken in taken_us.items():
            ratios = [us / line for us, line in zip(taken, taken_us["sdpa"], strict=True)]
            us, ratio, bar = median(taken), median(ratios), BARS.get((size, way))
            met = bar is None or ratio <= bar
            verdict = "" if bar is None else f"  bar {bar:g} ×  {'met' if met else 'MISSED'}"
            missed += not met
            print(f"  {way:26}{us:8.1f} µs{ratio:7.2f} ×{verdict}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Every backend against the length of the cache, one new query."""

from .grid import BACKENDS, Grid


class Decode(Grid):
    """B1 H32/8 D128 in bfloat16: Llama-3-8B."""

    params = (BACKENDS, [1024, 4096])
    budget_seconds = 15.0

    def problem(self, length, device):
        from rls_bench.problems.problem import Problem

        return Problem(1, 32, 8, 1, length, 128, 128, dtype="bfloat16", device=device)

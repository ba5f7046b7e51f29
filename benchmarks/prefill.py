"""Every backend against sequence length, prompts read in one go."""

from .grid import BACKENDS, Grid


class Prefill(Grid):
    """B1 H8 D64 in float32, not causal."""

    params = (BACKENDS, [256, 1024])

    def problem(self, length, device):
        from rls_bench.problems.problem import Problem

        return Problem(1, 8, 8, length, length, 64, 64, device=device)

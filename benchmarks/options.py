"""What each option of the operator costs, at the shapes of the prefill suite."""

from .grid import Grid


class ExactEps(Grid):
    """The published form's floor, 1e-9."""

    budget_seconds = 10.0

    def problem(self, length, device):
        from rls_bench.problems.problem import Problem

        return Problem(1, 8, 8, length, length, 64, 64, eps=1e-9, device=device)


class Statistics(Grid):
    """Row statistics beside the output."""

    budget_seconds = 10.0

    def problem(self, length, device):
        from rls_bench.problems.problem import Problem

        return Problem(1, 8, 8, length, length, 64, 64, return_stats=True, device=device)


class StrengthPerHead(Grid):
    """A strength for each head, as grounding heads want it."""

    budget_seconds = 10.0

    def problem(self, length, device):
        from rls_bench.problems.problem import Problem

        return Problem(1, 8, 8, length, length, 64, 64, strength_layout="h", device=device)

"""What choosing the backend adds to a call, once its shape class was looked up: the bar is 5 µs."""


class Dispatch:
    """A decoding step's problem, whose backend has been chosen before."""

    version = "1"

    def setup(self):
        """Look the class up."""
        from rls_bench.policy import dispatch
        from rls_bench.problems.problem import Problem

        self.resolve = dispatch.resolve
        self.problem = Problem(1, 9, 3, 1, 512, 64, 64)
        self.chosen = self.resolve("auto", self.problem)
        self.resolve(self.chosen, self.problem)

    def time_auto(self):
        """The policy's choice."""
        self.resolve("auto", self.problem)

    def time_named(self):
        """The same backend, asked for by name."""
        self.resolve(self.chosen, self.problem)

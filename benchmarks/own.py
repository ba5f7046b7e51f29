"""Every backend on your own problems: RLS_BENCH_PROBLEMS, in words that ``--problem`` takes, a ``;`` between them."""

import os

from .grid import BACKENDS, Grid, records

WORDS = [" ".join(words.split()) for words in os.environ.get("RLS_BENCH_PROBLEMS", "").split(";") if words.strip()]

# Without the variable there is nothing to measure, and asv knows no such suite.
if WORDS:

    class Own(Grid):
        """What was asked for, in its own words."""

        params = (BACKENDS, WORDS)
        param_names = ("backend", "problem")

        def problem(self, words, device):
            from rls_bench.problems.grammar import parse

            return parse(words, device)

        # On a line of its own, so that asking for one's own problems measures no others.
        def setup_cache(self):
            return records([self])

"""What a user waits for before anything runs; each import in a fresh process."""


class Imports:
    """Seconds of one import."""

    version = "1"
    # One import a process: the second would find it done.
    number = 1
    rounds = 1
    # As many as asv's test of two commits wants.
    repeat = 6

    def timeraw_package(self):
        return "import rls_bench"

    def timeraw_operator(self):
        return "from rls_bench import steered_attention"

    def timeraw_command_line(self):
        return "import rls_bench.cli.app"

"""``python -m rls_bench``: the command line of a checkout that is on the path and was never installed."""

import sys

from rls_bench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

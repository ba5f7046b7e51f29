"""``python -m rls_bench``: the command line of a checkout that is on the path and was never installed."""

from rls_bench.cli.app import main

if __name__ == "__main__":
    main()

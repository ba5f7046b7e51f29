"""asv suites: thin, since the runner measures."""

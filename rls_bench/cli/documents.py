"""Documents on standard output: JSON and Markdown that another program reads."""

from __future__ import annotations

import sys

from rls_bench.records.escape import visible


def write(text: str) -> None:
    """Print ``text``, which ends its own last line."""
    sys.stdout.write(visible(text))


def write_json(text: str) -> None:
    """Print JSON, which stays what it says whatever standard output can encode."""
    import json

    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8" or visible(text) != text:
        text = json.dumps(json.loads(text), indent=2)
    sys.stdout.write(text + "\n")

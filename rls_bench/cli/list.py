"""``rls-bench list``: the backends, and whether this machine can run them."""

from __future__ import annotations


def list_backends() -> None:
    """List the backends: available here, or why not."""
    from rich.table import Table
    from rich.text import Text

    from rls_bench.backends import registry
    from rls_bench.cli.console import Console
    from rls_bench.errors import BackendUnavailable

    table = Table()
    for column in ("backend", "here", "what", "why"):
        table.add_column(column)
    for name in registry.names():
        try:
            backend = registry.get(name)
        except BackendUnavailable as error:
            table.add_row(name, Text("broken", "red"), "", str(error))
            continue
        available, measurable = backend.available(), backend.measurable()
        if not available:
            here, why = Text("unavailable", "dim"), available.reason
        elif not measurable:
            here, why = Text("agreement only", "yellow"), measurable.reason
        else:
            here, why = Text("measured", "green"), ""
        table.add_row(name, here, backend.summary, why)
    Console().print(table)

"""``rls-bench list``: the backends, and whether this machine can run them."""

from __future__ import annotations


def list_backends() -> None:
    """List the backends: available here, or why not."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rls_bench.backends import registry
    from rls_bench.errors import BackendUnavailable

    table = Table()
    for column in ("backend", "here", "what", "why"):
        table.add_column(column)
    for name in registry.names():
        try:
            backend = registry.get(name)
        except BackendUnavailable as error:
            table.add_row(name, "[red]broken[/]", "", escape(str(error)))
            continue
        available, measurable = backend.available(), backend.measurable()
        if not available:
            here, why = "[dim]unavailable[/]", available.reason
        elif not measurable:
            here, why = "[yellow]agreement only[/]", measurable.reason
        else:
            here, why = "[green]measured[/]", ""
        table.add_row(name, here, backend.summary, escape(why))
    Console().print(table)

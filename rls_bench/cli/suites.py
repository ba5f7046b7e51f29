"""``rls-bench suites``: the workloads that the package carries, and their problems."""

from __future__ import annotations

from typing import Annotated

import typer


def list_suites(
    name: Annotated[str, typer.Argument(help="A suite: its problems in words; all suites where none is named.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One object a suite.")] = False,
) -> None:
    """List the suites, or the problems of one in words that --problem takes."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rls_bench.problems import suites

    if name and name not in suites.names():
        raise typer.BadParameter(f"suite: wanted one of {', '.join(suites.names())}; got {name!r}")
    found = {one: suites.read(one) for one in ([name] if name else suites.names())}
    if json:
        listing = {
            one: {
                "about": suite.about,
                "problems": [
                    {"name": entry.problem.name, "words": entry.problem.title, "weight": entry.weight}
                    for entry in suite.problems
                ],
            }
            for one, suite in found.items()
        }
        typer.echo(msgspec.json.format(msgspec.json.encode(listing)).decode())
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for one, suite in found.items():
        count = len(suite.problems)
        table.add_row(Text(one, "bold"), Text(f"{suite.about} {count} problems"))
        for entry in suite.problems if name else ():
            table.add_row(Text(f"  {entry.problem.name}"), Text(entry.problem.title))
    Console().print(table)

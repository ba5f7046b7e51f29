"""``rls-bench list``: the backends, and whether this machine can run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rls_bench.cli import documents

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"measured": "green", "agreement only": "yellow", "unavailable": "dim", "broken": "red"}


class Status(NamedTuple):
    """measured, agreement only, unavailable or broken, and why it is no better."""

    status: str
    why: str


class Listed(NamedTuple):
    """One backend: ``status`` and ``why`` as in Status, ``what`` its own summary."""

    name: str
    status: str
    what: str
    why: str


def list_backends(json: Annotated[bool, typer.Option("--json", help="One object a backend.")] = False) -> None:
    """List the backends: available here, or why not."""
    backends = backends_here()
    if json:
        import msgspec

        documents.write_json(msgspec.json.format(msgspec.json.encode([one._asdict() for one in backends])).decode())
        return
    from rls_bench.cli.console import Console

    Console().print(table(backends))


def backends_here() -> list[Listed]:
    """Every registered backend, those first that this machine can time."""
    from rls_bench.backends import asking, registry
    from rls_bench.errors import BackendUnavailable

    found = []
    for name in registry.names():
        try:
            backend = registry.get(name)
        except BackendUnavailable as error:
            found.append(Listed(name, "broken", "", str(error)))
            continue
        what = str(getattr(backend, "summary", ""))
        # Built and tried, so that what is listed as measured works.
        if not (proven := asking.proven(backend)):
            found.append(Listed(name, "unavailable", what, proven.reason))
        elif not (measurable := asking.measurable(backend)):
            found.append(Listed(name, "agreement only", what, measurable.reason))
        else:
            found.append(Listed(name, "measured", what, ""))
    return sorted(found, key=lambda one: (list(STYLES).index(one.status), one.why, one.name))


def table(backends: Sequence[Listed]) -> Table:
    """A line a backend under its status; a reason that several share stands once, beside the status."""
    from rich.table import Table
    from rich.text import Text

    from rls_bench.records.escape import text

    what = {one.name: one.what for one in backends}
    result = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    result.add_column(no_wrap=True)
    result.add_column()
    for found, names in by_status(backends).items():
        result.add_row(Text(found.status, STYLES[found.status]), text(found.why, STYLES[found.status]))
        for name in names:
            result.add_row("  " + name, what[name])
    return result


def by_status(backends: Sequence[Listed]) -> dict[Status, list[str]]:
    """Names under the status and reason that they share."""
    names: dict[Status, list[str]] = {}
    for one in backends:
        names.setdefault(Status(one.status, one.why), []).append(one.name)
    return names

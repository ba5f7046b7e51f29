"""The page: one HTML file that needs no network, with every plot inside it and every string escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from rls_bench.report import figures
from rls_bench.report.palette import INK
from rls_bench.report.results import Results
from rls_bench.report.sections import sections

# An image sees the page's colour scheme, so its ink can follow it.
_INKS = (
    "<style>svg{--ink:#24292f}@media (prefers-color-scheme: dark){svg{--ink:#d7dce2}}"
    "text{font-family:system-ui,sans-serif}</style>"
)


def html(results: Results) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("rls_bench.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    parts = sections(results)
    with figures.style():
        images = {part.name: _data_uri(part.draw) for part in parts if part.draw}
    return environment.get_template("page.html.j2").render(
        css=files("rls_bench.report").joinpath("templates/page.css").read_text(encoding="utf-8"),
        sections=parts,
        images=images,
        colours=results.look.colours,
        paths=[str(path) for path in results.paths],
        machines=list(results.machines),
        count=len(results.records),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _data_uri(draw: Callable[[], Figure]) -> str:
    buffer = io.StringIO()
    save = partial(draw().savefig, buffer, format="svg", dpi=144)
    save(metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue().replace(INK, "var(--ink)")
    head, mark, rest = drawn.partition("<defs>")
    return "data:image/svg+xml;base64," + base64.b64encode(f"{head}{_INKS}{mark}{rest}".encode()).decode()

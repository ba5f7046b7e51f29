"""The page: one HTML file that needs no network, with every plot inside it and every string escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader

from rls_bench.report.palette import INK
from rls_bench.report.results import Results
from rls_bench.report.sections import Section, sections

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# An image sees the page's colour scheme, so its ink can follow it.
_INKS = (
    "<style>svg{--ink:#24292f}@media (prefers-color-scheme: dark){svg{--ink:#d7dce2}}"
    "text{font-family:system-ui,sans-serif}</style>"
)


def undrawable() -> str:
    """Why no picture can be drawn here, in one line; empty where one can."""
    try:
        from rls_bench.report import figures  # noqa: F401
    except ImportError as error:
        return f"no pictures, which want seaborn and matplotlib: {error}"
    return ""


def html(results: Results) -> str:
    """The whole page; without pictures where none can be drawn, and then it says why."""
    environment = Environment(
        loader=PackageLoader("rls_bench.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    parts, why_not = sections(results), undrawable()
    return environment.get_template("page.html.j2").render(
        css=files("rls_bench.report").joinpath("templates/page.css").read_text(encoding="utf-8"),
        sections=parts,
        images={} if why_not else _images(parts),
        why_not=why_not,
        colours=results.look.colours,
        paths=[str(path) for path in results.paths],
        machines=list(results.machines),
        count=len(results.records),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _images(parts: Sequence[Section]) -> dict[str, str]:
    """Each part's plot, by the part's name."""
    from rls_bench.report import figures

    with figures.style():
        return {part.name: _data_uri(part.draw()) for part in parts if part.draw}


def _data_uri(figure: Figure) -> str:
    buffer = io.StringIO()
    save = partial(figure.savefig, buffer, format="svg", dpi=144)
    save(metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue().replace(INK, "var(--ink)")
    head, mark, rest = drawn.partition("<defs>")
    return "data:image/svg+xml;base64," + base64.b64encode(f"{head}{_INKS}{mark}{rest}".encode()).decode()

"""What a task hands back, and how it is written down."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rls_bench.machines import host


@dataclass(frozen=True)
class Bar:
    """One thing that a task was asked to show, and whether it did."""

    what: str
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class Run:
    """The command that evaluated, and what it took: seconds on the clock and of CPU time, which a shared machine does
    not stretch."""

    command: str
    elapsed_s: float
    cpu_s: float

    def __str__(self) -> str:
        machine, date = host.current(), datetime.datetime.now(datetime.timezone.utc).date()
        took = f"{self.elapsed_s:.0f} s, {self.cpu_s:.0f} s of CPU time"
        return f"`{self.command}`, {date}: {took}, on {machine.title} (torch {machine.torch})."


@dataclass(frozen=True)
class Evaluation:
    """Everything that one run of a task found.

    ``rows`` holds each single measurement; ``tables`` the summaries by caption, in the order of reading; ``about``
    says in a few lines what was done.
    """

    task: str
    title: str
    about: str
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    bars: list[Bar]
    figure: Figure

    @property
    def bar_table(self) -> pd.DataFrame:
        """The bars, as a table."""
        cells = [(bar.what, bar.wanted, bar.got, "yes" if bar.met else "no") for bar in self.bars]
        return pd.DataFrame(cells, columns=["bar", "wanted", "got", "met"])

    def section(self, run: Run, figure: str) -> str:
        """The run as a Markdown section; ``figure`` is the path of the picture as the document will see it."""
        parts = [f"## {self.title}", self.about, str(run), f"![{self.title}]({figure})", _markdown(self.bar_table)]
        for caption, table in self.tables.items():
            parts += [f"**{caption}**", _markdown(table)]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, run: Run, document: Path | None = None) -> list[Path]:
        """Write ``TASK.csv``, ``TASK.png`` and ``TASK.md`` to ``folder``; returns what was written.

        With ``document``, its section of the same title is replaced, or added at its end, and the picture is put
        beside it in ``figures/``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.task}.{suffix}" for suffix in ("csv", "png", "md")]
        self.rows.to_csv(paths[0], index=False)
        self.figure.savefig(paths[1], dpi=120)
        paths[2].write_text(self.section(run, paths[1].name), encoding="utf-8")
        if document is not None:
            picture = document.parent / "figures" / paths[1].name
            picture.parent.mkdir(parents=True, exist_ok=True)
            self.figure.savefig(picture, dpi=120)
            text = document.read_text(encoding="utf-8") if document.exists() else ""
            section = self.section(run, f"figures/{picture.name}")
            document.write_text(replace_section(text, section), encoding="utf-8")
            paths += [document, picture]
        return paths


def replace_section(text: str, section: str) -> str:
    """``text`` with ``section``, which starts with a ``## `` heading, in the place of the one of that heading."""
    heading = section.splitlines()[0]
    pattern = re.compile(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: section + "\n", text).rstrip("\n") + "\n"
    return (text.rstrip("\n") + "\n\n" if text.strip() else "") + section


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)

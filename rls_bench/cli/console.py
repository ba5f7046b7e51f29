"""Where commands print: nothing that a name, path or reason holds is acted on, and in a pipe nothing is cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rls_bench.records.escape import visible

# Where nobody looks (a log, a pipe) nothing forces a narrow table.
_PIPE_COLUMNS = 100_000


class Console(rich.console.Console):
    """rich's console without markup, emoji codes and highlights; escape sequences in what it prints are shown."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.file.isatty():
            self.width = _PIPE_COLUMNS

    def render_str(self, text: str, **options: Any) -> Text:
        """Before anything is measured, so that what is shown fits."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What came as rich's own Text was not seen above."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """A reader that went away is told by ``main`` in every command alike."""
        raise BrokenPipeError

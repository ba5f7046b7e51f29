"""Text that others wrote (names, reasons, paths), made safe to show: the one place that does it for every form.

A results file, a report or a plugin may hold anything. What a terminal, Markdown, GitHub or a spreadsheet would act on
is shown as it is written, not acted on.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# What may begin a formula in Excel, LibreOffice and Google Sheets (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t")
_MARKDOWN = str.maketrans({sign: "\\" + sign for sign in "\\`*_[]|~"})


def visible(value: str) -> str:
    """``value`` with all that has no shape of its own written as Python does: an escape character becomes ``\\x1b``.

    Tabs and line breaks stay. Bytes of a file name that are no UTF-8 are written so, too.
    """
    if value.isprintable():
        return value
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in value
    )


def one_line(value: str) -> str:
    """``value`` as ``visible`` gives it, on one line: each run of white space becomes a space."""
    return visible(" ".join(value.split()))


def text(value: str, style: str = "") -> Text:
    """``value`` for rich, in which no markup, emoji code or escape sequence is taken for what it says."""
    from rich.text import Text

    return Text(visible(value), style)


def markdown(value: str) -> str:
    """One line that Markdown shows as it is, inside a table's cell, too."""
    return html.escape(one_line(value), quote=False).translate(_MARKDOWN)


def github_data(value: str) -> str:
    """The message of a GitHub workflow command, as GitHub's own toolkit escapes it."""
    return visible(value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def github_property(value: str) -> str:
    """A property of a GitHub workflow command."""
    return github_data(value).replace(":", "%3A").replace(",", "%2C")


def csv_cell(value: str) -> str:
    """A cell that no spreadsheet takes for a formula: a quote stands before one that would begin it."""
    shown = visible(value)
    return "'" + shown if shown.startswith(_FORMULA) else shown

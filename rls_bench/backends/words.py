"""A backend's own words, made fit for a record and a terminal: one line, of printable text, with where it was said."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

_MOST = 300
_OURS = str(Path(__file__).parents[1]) + os.sep


def one_line(text: str) -> str:
    """``text`` in one line of at most 300 characters that any encoding and terminal can show."""
    joined = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in joined)[:_MOST]


def told(error: BaseException) -> str:
    """What an exception says, and the line of the backend that raised it."""
    where = _place(error)
    if isinstance(error, SystemExit):
        return one_line(f"it called sys.exit({error.code}){where}")
    try:
        message = str(error)
    # An exception's own __str__ is a backend's code, too.
    except Exception:
        message = "?"
    # The place matters more than the end of a long message.
    return one_line(f"{type(error).__name__}: {message}")[: _MOST - len(where)] + where


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    # What is raised deep inside a library is told by the backend's line that called it.
    own = [frame for frame in frames if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    last = (own or frames)[-1:]
    return f" ({os.path.basename(last[0].filename)}:{last[0].lineno})" if last else ""


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OURS, "<"))

"""Where a command is to write: tried before the work, so that no figure is lost for want of a place."""

from __future__ import annotations

import os
from pathlib import Path

import typer


def check_file(path: Path | None, option: str) -> None:
    """Raise a typer.BadParameter unless ``path`` is a file that can be written, or can be made; None is fine."""
    if path is None:
        return
    if path.is_dir():
        raise typer.BadParameter(f"{option}: wanted a file; {str(path)!r} is a folder")
    if path.exists():
        if not path.is_file():
            raise typer.BadParameter(f"{option}: wanted a regular file; {str(path)!r} is none")
        if not os.access(path, os.W_OK):
            raise typer.BadParameter(f"{option}: {str(path)!r} cannot be written")
    else:
        check_folder(path.parent, option)


def check_picture(path: Path | None, option: str) -> None:
    """As ``check_file``; and the name must end as a picture's that can be drawn."""
    check_file(path, option)
    if path and path.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{option}: wanted a name that ends in .png, .svg or .pdf; got {str(path)!r}")


def check_folder(path: Path | None, option: str) -> None:
    """Make ``path``; raise a typer.BadParameter where it cannot be, or nothing can be written there."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{option}: {str(path)!r} cannot be made ({error.strerror})") from error
    # A read-only file system refuses root, too.
    if not os.access(path, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{option}: nothing can be written in {str(path)!r}")

"""Entry point of ``rls-bench``: however a command ends, it ends with a code of its own and at most one line of why.

Codes 0, 1, 3 and 4 are verdicts and come from commands alone; docs/exit-codes.md says what each means.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# The call cannot be done as asked: wrong arguments, a file that cannot be read or written, a package that is missing.
CANNOT = 2
# EX_SOFTWARE of sysexits.h: a fault of rls_bench itself, or of a plugin that it could not contain.
FAULT = 70
# As a shell reports a program that SIGINT or SIGPIPE ended.
INTERRUPTED = 130
UNREAD = 141

TRACEBACK = "RLS_BENCH_TRACEBACK"


def main() -> int:
    """Run the command line; the exit code."""
    return ended(_invoke)


def _invoke() -> int:
    from rls_bench.cli.app import app

    code = app(standalone_mode=False)
    return code if isinstance(code, int) else 0


def ended(command: Callable[[], int]) -> int:
    """The exit code of ``command``; what it raised is told on standard error."""
    try:
        _accept_any_text()
        code = command()
        _flush_output()
    # Each has a code: Ctrl-C, a wrong call, a fault of our own.
    except BaseException as error:
        code, message = _outcome(error)
        if message:
            _tell(message)
    else:
        if code == INTERRUPTED:
            _tell("interrupted")
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    return code


def _accept_any_text() -> None:
    """Have the standard streams write what their encoding lacks as ``\\u03bb``; a closed one swallows everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Lives as long as the process.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _outcome(error: BaseException) -> tuple[int, str]:
    """The exit code for what a command raised, and the line that says why."""
    from rls_bench.errors import RlsBenchError

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    # typer and rich answer a reader that went away with an exit of their own.
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return UNREAD, ""
    if isinstance(error, RlsBenchError):
        return CANNOT, str(error)
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        return CANNOT, _usage(error)
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "cannot read or write"
        return CANNOT, f"{place}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return CANNOT, f"out of memory: {error}".rstrip(": ")
    if isinstance(error, ImportError):
        return CANNOT, f"a package cannot be imported: {error}"
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    what = "".join(traceback.format_exception_only(error)).strip()
    return FAULT, f"fault in {_place(error.__traceback__)}: {what}; please report it ({TRACEBACK}=1 shows more)"


def _flush_output() -> None:
    """Fail here rather than after the exit code was given away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def _usage(error: BaseException) -> str:
    """What typer says to a wrong call: how it is meant, then what was wrong."""
    from rls_bench.records.escape import visible

    error.message = visible(getattr(error, "message", ""))  # type: ignore[attr-defined]
    # Standard error may be closed or full: the exit code still tells.
    with suppress(OSError):
        error.show()  # type: ignore[attr-defined]
    return ""


def _place(trace: TracebackType | None) -> str:
    """``verdict.py:120``, where the exception was raised."""
    frames = traceback.extract_tb(trace)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "rls_bench"


def _tell(message: str) -> None:
    from rls_bench.records.escape import one_line

    # The same: the exit code is left to tell.
    with suppress(OSError, ValueError):
        print(f"rls-bench: {one_line(message)}", file=sys.stderr)


def _flush(stream: object) -> None:
    """Write out what is left; where nothing can be written, keep Python from trying again and complaining."""
    try:
        stream.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError):
        # A stream without a descriptor is none that Python flushes again.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]

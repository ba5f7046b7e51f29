"""How long the parts of earlier runs took on this machine, kept so that the next run can say how long it will take.

Nothing is believed by it but an estimate: what is right, and how long a call takes, is found out anew in every run.
Truths of the referee's are never kept, neither here nor elsewhere: they would lie where the next run's kernels, which
are the same user's, can read the answers that they are to work out.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from rls_bench.runner.forecast import Slice

_MOST_ENTRIES = 1000
_MOST_BYTES = 1 << 20
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


def load() -> dict[str, Slice]:
    """What is kept, by key; empty where nothing is, or nothing that can be read."""
    try:
        path = _path()
        if path.stat().st_size > _MOST_BYTES:
            return {}
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[_Seconds, ...]])
        return {key: Slice(*parts) for key, parts in found.items() if len(parts) == 5}
    except (OSError, RuntimeError, msgspec.MsgspecError, UnicodeError):
        return {}


def save(learnt: Mapping[str, Slice]) -> None:
    """Keep ``learnt`` beside what is kept already, the newest last; a cache that cannot be written stays as it is."""
    kept = load()
    for key in learnt:
        kept.pop(key, None)
    kept |= learnt
    newest = dict(list(kept.items())[-_MOST_ENTRIES:])
    lines = {key: (each.compile, each.oracle, each.check, each.turns, each.least) for key, each in newest.items()}
    with suppress(OSError, RuntimeError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            beside.write_bytes(msgspec.json.encode(lines))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _path() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("rls_bench") / "durations.json"

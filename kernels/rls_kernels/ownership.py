"""Whether a file can be another user's doing: code and choices are taken from no place that others may write to.

As OpenSSH's StrictModes does for keys: a file and its folder belong to this user or to root, nobody else may write
them, and no folder above lets others put another in their place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Who owns files in a user namespace whose owner the namespace doesn't know.
_UNMAPPED = 65534


def refusal(path: Path) -> str:
    """Why ``path`` isn't to be trusted, in one line; empty where it is. Raises OSError where it cannot be looked at."""
    if not hasattr(os, "geteuid"):
        return ""
    ours = {0, os.geteuid()}
    place = path.resolve(strict=True)
    for each in (place, place.parent):
        found = each.stat()
        if found.st_uid not in ours:
            return f"{each} belongs to user {found.st_uid}"
        if _others_may_write(found) and not (each != place and found.st_mode & stat.S_ISVTX):
            return f"others may write {each}"
    for above in place.parent.parents:
        found = above.stat()
        if found.st_uid not in ours | {_UNMAPPED}:
            return f"{above} belongs to user {found.st_uid}"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"others may write {above}"
    return ""


def _others_may_write(found: os.stat_result) -> bool:
    """Whether anyone but the owner may write; a group of the owner's own name is nobody else."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private_group(found.st_uid, found.st_gid)


def _is_private_group(user: int, group: int) -> bool:
    import grp
    import pwd

    try:
        return pwd.getpwuid(user).pw_name == grp.getgrgid(group).gr_name and not grp.getgrgid(group).gr_mem
    except KeyError:
        return False

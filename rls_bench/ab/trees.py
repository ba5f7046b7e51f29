"""The sources of a commit in a worktree of its own, made once and kept by its hash; or a directory as it lies there."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from rls_bench.errors import RlsBenchError


@dataclass(frozen=True)
class Tree:
    """Where sources lie, and of which commit they are; ``dirty`` ones have changes that no commit has."""

    path: Path
    commit: str | None
    dirty: bool = False

    @property
    def title(self) -> str:
        """``1a2b3c4d5e6f+changes``."""
        return (self.commit or "no commit")[:12] + "+changes" * self.dirty


def of_commit(name: str, repository: Path | None = None) -> Tree:
    """The worktree of the commit called ``name`` in the repository about ``repository``, the working directory if None.

    It lies beside the repository's own data, under ``.git/rls-bench``, and stays for the next time. Raises
    RlsBenchError where there is no repository, no such commit, or no backend in it.
    """
    here = repository or Path.cwd()
    commit = _git(here, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    path = (here / _git(here, "rev-parse", "--git-common-dir")).resolve() / "rls-bench" / commit[:12]
    if not (path / ".git").exists():
        _git(here, "worktree", "prune")
        _git(here, "worktree", "add", "--quiet", "--force", "--detach", str(path), commit)
    return _checked(Tree(path, commit))


def between(good: str, bad: str, repository: Path | None = None) -> list[str]:
    """The commits from ``good`` to ``bad``, both among them, oldest first; of a merge the line that was merged into.

    Raises RlsBenchError where one of them is no commit, or ``good`` is no ancestor of ``bad``.
    """
    here = repository or Path.cwd()
    first, last = (_git(here, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") for name in (good, bad))
    if _git(here, "merge-base", first, last) != first:
        raise RlsBenchError(f"{good} is no ancestor of {bad}: wanted the commit that was good before the bad one")
    return [first, *_git(here, "rev-list", "--reverse", "--first-parent", f"{first}..{last}").split()]


def subject(commit: str, repository: Path | None = None) -> str:
    """The first line of a commit's message."""
    return _git(repository or Path.cwd(), "show", "--no-patch", "--format=%s", commit)


def of_directory(path: Path) -> Tree:
    """The sources in ``path`` as they are; of the commit that is checked out there, if any."""
    path = path.resolve()
    try:
        commit = _git(path, "rev-parse", "HEAD")
        dirty = bool(_git(path, "status", "--porcelain", "--untracked-files=no"))
        root = Path(_git(path, "rev-parse", "--show-toplevel"))
    except RlsBenchError:
        return _checked(Tree(path, None))
    return _checked(Tree(root if (root / "kernels").is_dir() else path, commit, dirty))


def _checked(tree: Tree) -> Tree:
    if not any((tree.path / part).is_dir() for part in ("kernels", "baselines")):
        raise RlsBenchError(f"ab: {tree.path} holds neither kernels/ nor baselines/: wanted a tree of this project")
    return tree


def _git(where: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=where, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RlsBenchError(f"ab: wanted git on PATH and the directory {where} ({error.strerror})") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}: no such commit"]
        raise RlsBenchError(
            f"ab: git {' '.join(arguments[:2])} {arguments[-1]} failed in {where}: {said[-1]}"
        ) from error
    return done.stdout.strip()

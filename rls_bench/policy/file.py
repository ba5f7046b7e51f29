"""The words of a policy: which backend for which regime of one machine, as a JSON file that people read, too."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from rls_kernels.ownership import refusal

from rls_bench.errors import PolicyError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem

SCHEMA = 1
# Of a file with a section a machine, each as of the schema above.
SECTIONS_SCHEMA = 2

# What must be as it was when the figures were taken. The commit is kept beside them, but an installed wheel has none.
VALIDITY = ("fingerprint", "driver", "cuda", "cudnn", "torch", "triton")
Size = Annotated[int, msgspec.Meta(ge=1, le=2**48)]
_SPREAD = {"k": "shared", "bk": "shared", "bhk": "head"}
_GATE = {"scalar": "scalar", "h": "head", "bh": "head", "bhq": "query"}


@dataclass(frozen=True)
class Kind:
    """What two problems must share for one's evidence to say anything about the other.

    ``bias`` is shared by the heads or given per head; ``strength`` is a scalar, per head or per query.
    """

    device: str
    regime: Literal["prefill", "decode"]
    dtype: str
    is_causal: bool
    has_eps: bool
    bias: str
    strength: str
    has_key_lengths: bool
    return_stats: bool
    requires_grad: bool

    @property
    def title(self) -> str:
        """``prefill float32 causal eps``: what is out of the ordinary, and nothing else."""
        words = [self.regime, self.dtype]
        words += ["causal"] * self.is_causal + ["eps"] * self.has_eps + ["padded"] * self.has_key_lengths
        words += [f"b per {self.bias}"] * (self.bias != "shared") + [f"λ per {self.strength}"] * (
            self.strength != "scalar"
        )
        words += ["stats"] * self.return_stats + ["grad"] * self.requires_grad
        return " ".join(words)


def kind(problem: Problem) -> Kind:
    """The kind of ``problem``; a causal mask over one query hides nothing and doesn't count."""
    return Kind(
        device=problem.device,
        regime=problem.regime,
        dtype=problem.dtype,
        is_causal=problem.masks_causally,
        has_eps=problem.eps > 0,
        bias=_SPREAD[problem.bias_layout],
        strength=_GATE[problem.strength_layout],
        has_key_lengths=problem.has_key_lengths,
        return_stats=problem.return_stats,
        requires_grad=problem.requires_grad,
    )


@dataclass(frozen=True)
class Point:
    """The sizes of one measured problem."""

    batch: Size
    query_heads: Size
    kv_heads: Size
    query_length: Size
    key_length: Size
    head_dim: Size
    value_dim: Size


_SIZES = attrgetter("batch", "query_heads", "kv_heads", "query_length", "key_length", "head_dim", "value_dim")


def point(problem: Problem) -> Point:
    """The sizes of ``problem``."""
    return Point(*_SIZES(problem))


@dataclass(frozen=True)
class Rule:
    """One regime: problems of a kind with these head dims, over the measured range of key lengths.

    ``backends`` is the choice and, after it, what to take where it refuses a problem; empty where the evidence is too
    thin. ``margin`` is how much slower the next one is, ``worst_regret`` how much slower the choice is than the best
    of any one problem here; both relative, 0.05 is 5 %, None where nothing was there to compare. ``regret_bound`` is
    what that may be at 95 % confidence. ``costs`` has a figure for each measured problem, in their order: nanoseconds,
    or whatever the objective counts; None where that backend lacks it.
    """

    kind: Kind
    head_dim: Size
    value_dim: Size
    measured: Annotated[tuple[Point, ...], msgspec.Meta(min_length=1)]
    backends: tuple[str, ...]
    why: str
    margin: float | None = None
    worst_regret: float | None = None
    regret_bound: float | None = None
    costs: dict[str, tuple[float | None, ...]] = field(default_factory=dict)

    def cost(self, backend: str, place: int) -> float | None:
        """What ``backend`` costs on the measured problem at ``place``; None where that isn't known."""
        known = self.costs.get(backend)
        return None if known is None else known[place]

    @property
    def shortest(self) -> int:
        """The least key length measured."""
        return min(point.key_length for point in self.measured)

    @property
    def longest(self) -> int:
        """The greatest key length measured."""
        return max(point.key_length for point in self.measured)


@dataclass(frozen=True)
class Policy:
    """The rules of one machine. ``validity`` names hardware and versions, ``renew`` the commands that measure anew."""

    created: str
    machine: str
    validity: dict[str, str | None]
    commits: tuple[str, ...]
    objective: str
    renew: str
    rules: tuple[Rule, ...] = field(default_factory=tuple)
    # Fingerprint of the workload that it was chosen for; empty where every problem counted alike.
    workload: str = ""
    schema: int = SCHEMA


def validity(machine: Machine) -> dict[str, str | None]:
    """What a policy for ``machine`` holds of it."""
    return {name: getattr(machine, name) for name in VALIDITY}


def write(path: Path, *sections: Policy) -> None:
    """Write a policy of one machine, or of several kinds of them, indented, whole or not at all.

    Raises PolicyError where that fails, a section names a module, or two speak of the same machine.
    """
    _check_all(sections, path)
    content = sections[0] if len(sections) == 1 else _Sections(sections)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        # Whatever the umask, or it would not be trusted.
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise PolicyError(f"policy {path}: cannot be written ({error.strerror})") from error


def read(path: Path) -> Policy:
    """The policy of one machine in ``path``. Raises PolicyError as ``read_sections`` does, and where it has several."""
    found = read_sections(path)
    if len(found) > 1:
        titles = "; ".join(section.machine for section in found)
        raise PolicyError(f"policy {path}: wanted one machine; it speaks of {len(found)}: {titles}")
    return found[0]


def read_sections(path: Path) -> tuple[Policy, ...]:
    """The policy in ``path``, a section a machine kind.

    Raises PolicyError where there is none that this user alone (or root) can have written, or it is malformed, of
    another schema, or names a module to import.
    """
    raw = _bytes(path)
    try:
        schema = msgspec.json.decode(raw, type=_Versioned).schema
        if schema not in (SCHEMA, SECTIONS_SCHEMA):
            raise PolicyError(
                f"policy {path}: schema {schema}; this version reads {SCHEMA} and {SECTIONS_SCHEMA}: "
                "run rls-bench choose again"
            )
        if schema == SCHEMA:
            sections: tuple[Policy, ...] = (msgspec.json.decode(raw, type=Policy),)
        else:
            sections = msgspec.json.decode(raw, type=_Sections).machines
    # Bytes that are no UTF-8 are a ValueError of Python's own, nesting without end a RecursionError.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PolicyError(f"policy {path}: {error}") from error
    _check_all(sections, path)
    return sections


def others(path: Path, sections: Sequence[Policy]) -> tuple[Policy, ...]:
    """The sections of the policy in ``path`` that speak of other hardware than ``sections``; none where it can't be
    read."""
    mine = {section.validity["fingerprint"] for section in sections}
    try:
        return tuple(section for section in read_sections(path) if section.validity["fingerprint"] not in mine)
    except PolicyError:
        return ()


def closest(sections: Sequence[Policy], holds: Mapping[str, str | None]) -> Policy:
    """The section for a machine of which ``holds`` is true, or else the one that is least wrong about it."""

    def wrong(section: Policy) -> tuple[bool, int]:
        names = [name for name, wanted in section.validity.items() if holds.get(name) != wanted]
        return "fingerprint" in names, len(names)

    return min(sections, key=wrong)


def _bytes(path: Path) -> bytes:
    try:
        # Whether it is a file is asked of what was opened; a FIFO would wait for its writer.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PolicyError(f"policy {path}: wanted a regular file")
            if reason := refusal(path):
                raise PolicyError(f"policy {path}: cannot be trusted: {reason}; make it this user's alone")
            return file.read()
    except OSError as error:
        raise PolicyError(f"policy {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PolicyError(f"policy {str(path)!r}: cannot be read ({error})") from error


def _check_all(sections: Sequence[Policy], path: Path) -> None:
    """Raise PolicyError unless each section is fit, and each speaks of a machine of its own."""
    for section in sections:
        _check(section, path)
    if len({tuple(sorted(section.validity.items())) for section in sections}) < len(sections):
        raise PolicyError(f"policy {path}: wanted one section for each machine; two speak of the same")


def _check(policy: Policy, path: Path) -> None:
    """What types cannot say. Raises PolicyError."""
    if missing := [name for name in VALIDITY if name not in policy.validity]:
        raise PolicyError(f"policy {path}: its validity lacks {', '.join(missing)}")
    for name in (name for rule in policy.rules for name in rule.backends):
        if ":" in name:
            raise PolicyError(
                f"policy {path}: names {name!r}, a module to import; wanted registered backends: give it an entry point"
            )


@dataclass(frozen=True)
class _Sections:
    """A file that speaks of several machines."""

    machines: Annotated[tuple[Policy, ...], msgspec.Meta(min_length=1)]
    schema: int = SECTIONS_SCHEMA


class _Versioned(msgspec.Struct):
    schema: int

"""The words of a policy: which backend for which regime of one machine, as a JSON file that people read, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal

import msgspec

from rls_bench.errors import PolicyError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem

SCHEMA = 1

# What must be as it was when the figures were taken. The commit is kept beside them, but an installed wheel has none.
VALIDITY = ("fingerprint", "driver", "cuda", "cudnn", "torch", "triton")
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

    batch: int
    query_heads: int
    kv_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_dim: int


_SIZES = attrgetter("batch", "query_heads", "kv_heads", "query_length", "key_length", "head_dim", "value_dim")


def point(problem: Problem) -> Point:
    """The sizes of ``problem``."""
    return Point(*_SIZES(problem))


@dataclass(frozen=True)
class Rule:
    """One regime: problems of a kind with these head dims, over the measured range of key lengths.

    ``backends`` is the choice and, after it, what to take where it refuses a problem; empty where the evidence is too
    thin. ``margin`` is how much slower the next one is, ``worst_regret`` how much slower the choice is than the best
    of any one problem here; both relative, 0.05 is 5 %, None where nothing was there to compare.
    """

    kind: Kind
    head_dim: int
    value_dim: int
    measured: tuple[Point, ...]
    backends: tuple[str, ...]
    why: str
    margin: float | None = None
    worst_regret: float | None = None

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
    schema: int = SCHEMA


def validity(machine: Machine) -> dict[str, str | None]:
    """What a policy for ``machine`` holds of it."""
    return {name: getattr(machine, name) for name in VALIDITY}


def write(path: Path, policy: Policy) -> None:
    """Write ``policy``, indented, whole or not at all. Raises PolicyError where that fails."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode(policy), indent=2) + b"\n")
        part.replace(path)
    except OSError as error:
        raise PolicyError(f"policy {path}: cannot be written ({error.strerror})") from error


def read(path: Path) -> Policy:
    """The policy in ``path``. Raises PolicyError where there is none, or one of another schema."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"policy {path}: cannot be read ({error.strerror})") from error
    try:
        schema = msgspec.json.decode(raw, type=_Versioned).schema
        if schema != SCHEMA:
            raise PolicyError(
                f"policy {path}: schema {schema}; this version reads {SCHEMA}: run rls-bench choose again"
            )
        return msgspec.json.decode(raw, type=Policy)
    except msgspec.MsgspecError as error:
        raise PolicyError(f"policy {path}: {error}") from error


class _Versioned(msgspec.Struct):
    schema: int

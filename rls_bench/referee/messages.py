"""What the referee is asked, and what it replies; nothing here needs torch, for the coordinator has none."""

from __future__ import annotations

import msgspec

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement
from rls_bench.referee.contents import Contents


class Piece(msgspec.Struct, frozen=True):
    """A tensor in sealed memory: what it is, and where its ``size`` bytes begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Layout(msgspec.Struct, frozen=True):
    """What lies where in sealed memory: query, bias and their other draws, key, value, strength, key_lengths.

    ``problem`` describes the inputs; an excerpt's is smaller than the one that was asked about.
    """

    problem: Problem
    scale: float
    pieces: tuple[Piece, ...]


class Describe(msgspec.Struct, tag=True):
    """Say what machine this is."""


class Draw(msgspec.Struct, tag=True, frozen=True):
    """Draw the inputs of ``problem``; ``salt`` seeds what each run draws anew, ``excerpt`` is for slow backends."""

    problem: Problem
    salt: str
    excerpt: bool = False


class DrawUnseen(msgspec.Struct, tag=True):
    """Draw, by ``salt``, queries for the inputs that ``draw`` drew, which nobody has seen before."""

    draw: Draw
    salt: str


class JudgeResult(msgspec.Struct, tag=True):
    """Judge the result in a slot of the tray that comes along, of a call on ``contents`` of what ``draw`` drew.

    ``repeats``: the slot of an earlier result on the same contents, of which it must be the same bits. ``unseen``: the
    salt of the queries, where they are not those of the contents but drawn apart.
    """

    draw: Draw
    contents: Contents
    slot: int
    steers: bool
    repeats: int | None = None
    unseen: str = ""


Request = Describe | Draw | DrawUnseen | JudgeResult


class Described(msgspec.Struct, tag=True):
    machine: Machine


class Drawn(msgspec.Struct, tag=True):
    """What the sealed memory that comes along holds."""

    layout: Layout


class Judged(msgspec.Struct, tag=True):
    agreement: Agreement


class Failed(msgspec.Struct, tag=True):
    """The referee itself could not do it."""

    reason: str


Reply = Described | Drawn | Judged | Failed

"""How a problem is named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rls_bench.problems.problem import Problem

HELP = (
    "SUITE or SUITE:NUMBER (published, standard:3), or fields such as "
    "query_heads=32,query_length=1024,head_dim=128,dtype=bfloat16,is_causal=true."
)


def parse(text: str, device: str) -> Problem:
    """The problem that ``text`` names, on ``device``; a typer.BadParameter says what was wanted."""
    return _from_fields(text, device) if "=" in text else _from_suite(text, device)


def _from_suite(text: str, device: str) -> Problem:
    from rls_bench.problems import suites

    name, _, number = text.partition(":")
    try:
        problems = suites.get(name, device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    index = int(number or 1) if (number or "1").isdigit() else 0
    if not 1 <= index <= len(problems):
        raise typer.BadParameter(f"problem: suite {name} has numbers 1 to {len(problems)}; got {number!r}")
    return problems[index - 1]


def _from_fields(text: str, device: str) -> Problem:
    import dataclasses

    import msgspec

    from rls_bench.problems.problem import Problem

    known = [field.name for field in dataclasses.fields(Problem)]
    given: dict[str, object] = {"batch": 1, "device": device}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in known:
            raise typer.BadParameter(f"problem: wanted fields of {', '.join(known)}; got {name.strip()!r}")
        given[name.strip()] = value.strip()
    for name, same_as in (("kv_heads", "query_heads"), ("key_length", "query_length"), ("value_dim", "head_dim")):
        if same_as in given:
            given.setdefault(name, given[same_as])
    try:
        return msgspec.convert(given, Problem, strict=False)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(f"problem: {error}") from error

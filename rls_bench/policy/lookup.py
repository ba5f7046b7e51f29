"""Which backend ``backend="auto"`` takes: the policy of this machine, or a conservative rule where there is none.

A policy is looked for in the argument, in the variable RLS_BENCH_POLICY and in the user's configuration directory. One
made for another machine or other versions isn't used, and a warning says so once. A problem that nobody measured takes
the nearest regime, but only inside the measured bounds.
"""

from __future__ import annotations

import math
import os
import warnings
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from platformdirs import user_config_path

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, no
from rls_bench.errors import BackendError, BackendUnsupported, PolicyError
from rls_bench.machines import host
from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Policy, Rule
from rls_bench.problems.problem import Problem

VARIABLE = "RLS_BENCH_POLICY"

# Stands on no measurement of this machine, so: our CPU kernel, which tests itself, else what torch ships; the most
# general last.
BUILT_IN = {
    "cpu": ("cpu", "sdpa-cpu", "sdpa-math", "eager"),
    "cuda": ("keyfold", "sdpa-efficient", "flex", "sdpa-math", "eager"),
}


class PolicyWarning(UserWarning):
    """A policy was found but isn't used."""


@dataclass(frozen=True)
class Choice:
    """The backend for a problem, why, and the policy file that says so (None: the built-in rule)."""

    backend: str
    why: str
    policy: Path | None = None


def pick(problem: Problem, policy: str | Path | None = None, *, traced: bool = False) -> str:
    """The name of the backend for ``problem``, available here and able to do it.

    ``policy`` is a file that goes before all others; ``traced`` leaves out what torch.compile cannot take in. Raises
    PolicyError where a policy that was named cannot be read, BackendUnsupported where no backend does the problem.
    """
    return _guide(policy).pick(problem, traced)


def explain(problem: Problem, policy: str | Path | None = None) -> Choice:
    """What ``pick`` returns, and why."""
    return _guide(policy).explain(problem)


def default_path() -> Path:
    """Where a policy is found without being named."""
    return user_config_path("rls-bench", appauthor=False) / "policy.json"


def forget() -> None:
    """Look for policies anew: after one was written, or the environment changed."""
    _GUIDES.clear()


# Shape classes: all that decides but the lengths, which grow with every token decoded.
_SHAPE = attrgetter(
    "device",
    "dtype",
    "regime",
    "masks_causally",
    "eps",
    "bias_layout",
    "strength_layout",
    "has_key_lengths",
    "return_stats",
    "requires_grad",
    "batch",
    "query_heads",
    "kv_heads",
    "head_dim",
    "value_dim",
)


@dataclass(frozen=True)
class _Stretch:
    """Backends in order of preference; ``rule`` is the evidence, None for the built-in rule."""

    backends: tuple[tuple[str, Backend], ...]
    rule: Rule | None = None


@dataclass(frozen=True)
class _Lengths:
    """Stretches of key length for one shape class: ``stretches[i]`` serves up to ``ends[i]``, inside the bounds."""

    shortest_query: int
    longest_query: int
    shortest: int
    ends: tuple[int, ...]
    stretches: tuple[_Stretch, ...]

    def hold(self, problem: Problem) -> bool:
        """Whether the problem's lengths lie inside what was measured."""
        return (
            self.shortest_query <= problem.query_length <= self.longest_query
            and self.shortest <= problem.key_length <= self.ends[-1]
        )

    def at(self, problem: Problem) -> _Stretch:
        """The stretch that holds the problem's key length."""
        return self.stretches[bisect_left(self.ends, problem.key_length)]


class _Guide:
    """One policy, or none, with what it said about each shape class so far."""

    def __init__(self, path: Path | None, policy: Policy | None, why_not: str = "") -> None:
        self._path = path
        self._policy = policy
        self._why_not = why_not
        self._lengths: dict[tuple[object, ...], _Lengths | None] = {}
        self._built_in: dict[str, _Stretch] = {}

    def pick(self, problem: Problem, traced: bool = False) -> str:
        for name, backend in self._stretch(problem).backends:
            if (backend.traceable or not traced) and backend.supports(problem):
                return name
        return self._any(problem, traced)

    def explain(self, problem: Problem) -> Choice:
        name, stretch = self.pick(problem), self._stretch(problem)
        if stretch.rule is None:
            return Choice(name, f"{self._why_not_measured(problem)}; the built-in rule takes the first that can")
        if name not in stretch.rule.backends:
            return Choice(name, "no backend of the policy can do it; the built-in rule takes the first that can")
        first = stretch.rule.backends[0]
        refusal = "" if name == first else f"{first} cannot do it here, {name} is next; "
        return Choice(name, refusal + stretch.rule.why, self._path)

    def _why_not_measured(self, problem: Problem) -> str:
        if self._policy is None:
            return self._why_not
        lengths = self._lengths[_SHAPE(problem)]
        if lengths is None:
            return f"{self._path} has no measurement of this kind about these sizes"
        if not lengths.hold(problem):
            return f"{self._path} measured key lengths {lengths.shortest} to {lengths.ends[-1]} of this kind"
        rule = lengths.at(problem).rule
        return f"{self._path} chose nothing available here: {rule.why if rule else ''}"

    def _stretch(self, problem: Problem) -> _Stretch:
        shape = _SHAPE(problem)
        try:
            lengths = self._lengths[shape]
        except KeyError:
            lengths = self._lengths[shape] = self._look_up(problem)
        if lengths is not None and lengths.hold(problem):
            found = lengths.at(problem)
            if found.backends:
                return found
        return self._conservative(problem.device)

    def _look_up(self, problem: Problem) -> _Lengths | None:
        """The rules that speak of this shape class; None where it lies outside what was measured."""
        kind, sizes = policy_file.kind(problem), policy_file.point(problem)
        rules = [rule for rule in self._policy.rules if rule.kind == kind] if self._policy else []
        points = [point for rule in rules for point in rule.measured]
        for name in ("batch", "query_heads", "kv_heads", "head_dim", "value_dim"):
            measured = [getattr(point, name) for point in points]
            if not measured or not min(measured) <= getattr(sizes, name) <= max(measured):
                return None
        nearest = min(rules, key=lambda rule: _distance(rule, problem))
        family = [rule for rule in rules if (rule.head_dim, rule.value_dim) == (nearest.head_dim, nearest.value_dim)]
        return self._join(sorted(family, key=lambda rule: rule.shortest))

    def _join(self, rules: list[Rule]) -> _Lengths:
        """Neighbouring regimes meet midway between their measured lengths, on the scale of ratios."""
        ends = [math.isqrt(one.longest * other.shortest) for one, other in pairwise(rules)]
        queries = [point.query_length for rule in rules for point in rule.measured]
        return _Lengths(
            shortest_query=min(queries),
            longest_query=max(queries),
            shortest=rules[0].shortest,
            ends=(*ends, rules[-1].longest),
            stretches=tuple(_Stretch(_usable(rule.backends), rule) for rule in rules),
        )

    def _conservative(self, device: str) -> _Stretch:
        if device not in self._built_in:
            names = BUILT_IN.get(device, ("eager",))
            self._built_in[device] = _Stretch(_usable(names))
        return self._built_in[device]

    def _any(self, problem: Problem, traced: bool) -> str:
        refusals = []
        for name, backend in self._conservative(problem.device).backends:
            support = backend.supports(problem) if backend.traceable or not traced else no("cannot be traced")
            if support:
                return name
            refusals.append(f"{name}: {support.reason}")
        raise BackendUnsupported(f"no built-in backend does {problem.title} ({'; '.join(refusals)})")


_GUIDES: dict[str | Path | None, _Guide] = {}


def _guide(policy: str | Path | None) -> _Guide:
    try:
        return _GUIDES[policy]
    except KeyError:
        guide = _GUIDES[policy] = _load(policy)
        return guide


def _load(policy: str | Path | None) -> _Guide:
    named = policy or os.environ.get(VARIABLE)
    path = Path(named) if named else default_path()
    if not named and not path.exists():
        return _Guide(None, None, "no policy was found")
    try:
        loaded = policy_file.read(path)
    except PolicyError as error:
        # Whoever names a policy wants that one; one that merely lies there must not stop a server.
        if named:
            raise
        return _refuse(path, str(error))
    here = policy_file.validity(host.current())
    for name, wanted in loaded.validity.items():
        if here.get(name) != wanted:
            there = "another machine" if name == "fingerprint" else f"{name} {wanted}"
            reason = f"policy {path} was made for {there} ({loaded.machine}); this is {_here(name)}"
            return _refuse(path, f"{reason}. Renew it: {loaded.renew}")
    return _Guide(path, loaded)


def _here(name: str) -> str:
    machine = host.current()
    return machine.title if name == "fingerprint" else f"{name} {getattr(machine, name)}"


def _refuse(path: Path, reason: str) -> _Guide:
    warnings.warn(f"{reason}. Until then the built-in rule serves.", PolicyWarning, stacklevel=5)
    return _Guide(path, None, reason)


def _usable(names: Iterable[str]) -> tuple[tuple[str, Backend], ...]:
    """Those of ``names`` that are registered, steer, and are available on this machine, in order."""
    found = []
    for name in names:
        try:
            backend = registry.get(name)
        except BackendError:
            continue
        if backend.steers and backend.available():
            found.append((name, backend))
    return tuple(found)


def _distance(rule: Rule, problem: Problem) -> float:
    return abs(math.log(rule.head_dim / problem.head_dim)) + abs(math.log(rule.value_dim / problem.value_dim))

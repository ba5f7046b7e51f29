"""Which backend ``backend="auto"`` takes: the policy of this machine, or a conservative rule where there is none.

A policy is looked for in the argument, in the variable RLS_BENCH_POLICY and in the user's configuration directory. One
made for another machine or other versions isn't used, and a warning says so once. A problem that nobody measured takes
what its measured neighbours' costs say of it (stretches.py), but only between them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from platformdirs import user_config_path

from rls_bench.backends import asking, registry
from rls_bench.backends.interface import Backend, no
from rls_bench.errors import BackendError, BackendUnsupported, PolicyError
from rls_bench.machines import host
from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Policy
from rls_bench.policy.stretches import Advice, Stretches, stretches
from rls_bench.problems.problem import Problem

VARIABLE = "RLS_BENCH_POLICY"

# Stands on no measurement of this machine, so: our CPU kernel, which tests itself, else what torch ships; the most
# general last.
BUILT_IN = {
    "cpu": ("cpu", "sdpa-cpu", "sdpa-math", "eager"),
    "cuda": ("keyfold", "sdpa-efficient", "flex", "sdpa-math", "eager"),
}


class PolicyWarning(UserWarning):
    """A policy was found but isn't used, or ``auto`` does without a backend that it would have taken."""


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
    """Where a policy is found without being named; where nothing can lie for a user without a home."""
    try:
        return user_config_path("rls-bench", appauthor=False) / "policy.json"
    # Neither HOME nor an entry in passwd, as in a container with an arbitrary user.
    except RuntimeError:
        return Path(os.devnull, "policy.json")


def forget() -> None:
    """Look for policies anew, also where the user's configuration directory may have moved."""
    _GUIDES.clear()
    _DEFAULT_PATHS.clear()


def stamp(policy: str | Path | None = None) -> tuple[object, ...]:
    """Where "auto" looks for its policy now, and the file's identity there: it changes when the answer may."""
    path = policy or _environment.get(_VARIABLE_KEY) or _found_unnamed()
    # Most machines have no policy, and asking so is cheaper than an exception.
    if not os.access(path, os.F_OK):
        return (path,)
    try:
        found = os.stat(path)
    except OSError:
        return (path,)
    return path, found.st_mtime_ns, found.st_size, found.st_ino


# Every call asks: the mapping's own way takes 1.5 µs where the variable isn't set, by two exceptions.
_VARIABLE_KEY = os.environ.encodekey(VARIABLE)
_environment = os.environ._data  # type: ignore[attr-defined]
# A list of one, once it was asked for: platformdirs takes longer than a short decode step.
_DEFAULT_PATHS: list[str] = []


def _found_unnamed() -> str:
    if not _DEFAULT_PATHS:
        _DEFAULT_PATHS.append(str(default_path()))
    return _DEFAULT_PATHS[0]


def is_found(policy: str | Path | None = None) -> bool:
    """Whether there is a policy that speaks of this machine."""
    return _guide(policy).has_policy


def by_length(
    problem: Problem, policy: str | Path | None = None
) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
    """Key lengths, and the available backends that the policy advises up to each, of every problem like this one but
    for the key length (and the query's, where both are the same)."""
    return _guide(policy).by_length(problem)


def built_in(device: str) -> tuple[str, ...]:
    """The available backends of the built-in rule."""
    return tuple(name for name, _ in _usable(BUILT_IN.get(device, ("eager",))))


# Shape classes: all that decides but the lengths, which grow with every token decoded.
SHAPE = (
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
_SHAPE = attrgetter(*SHAPE)


# Backends that are registered, steer and are available here, in order of preference.
_Usable = tuple[tuple[str, Backend], ...]


class _Guide:
    """One policy, or none, with what it said about each shape class so far."""

    def __init__(self, path: Path | None, policy: Policy | None, why_not: str = "") -> None:
        self._path = path
        self._policy = policy
        self._why_not = why_not
        self._known: dict[tuple[object, ...], Stretches] = {}
        self._usable: dict[tuple[str, ...], _Usable] = {}

    @property
    def has_policy(self) -> bool:
        return self._policy is not None

    def by_length(self, problem: Problem) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
        known = self._stretches(problem)
        usable = (self._of(advice.backends) if advice else () for advice in known.advice)
        return known.ends, tuple(tuple(name for name, _ in each) for each in usable)

    def pick(self, problem: Problem, traced: bool = False) -> str:
        for name, backend in self._backends(problem):
            if (backend.traceable or not traced) and backend.supports(problem):
                return name
        return self._any(problem, traced)

    def explain(self, problem: Problem) -> Choice:
        name, advice = self.pick(problem), self._advice(problem)
        if advice is None or not self._of(advice.backends):
            return Choice(name, f"{self._why_not_measured(advice)}; the built-in rule takes the first that can")
        if name not in advice.backends:
            return Choice(name, "no backend of the policy can do it; the built-in rule takes the first that can")
        first = advice.backends[0]
        refusal = "" if name == first else f"{first} cannot do it here, {name} is next; "
        return Choice(name, refusal + advice.why, self._path)

    def _why_not_measured(self, advice: Advice | None) -> str:
        if self._policy is None:
            return self._why_not
        if advice is None:
            return f"{self._path} has no measurement of this kind about these sizes"
        return f"{self._path} chose nothing available here: {advice.why}"

    def _backends(self, problem: Problem) -> _Usable:
        advice = self._advice(problem)
        return (advice and self._of(advice.backends)) or self._conservative(problem.device)

    def _advice(self, problem: Problem) -> Advice | None:
        """What the policy says of ``problem``; None where it lies outside what was measured."""
        return self._stretches(problem).at(problem.key_length)

    def _stretches(self, problem: Problem) -> Stretches:
        is_square = problem.query_length == problem.key_length
        shape = (*_SHAPE(problem), is_square or problem.query_length)
        try:
            known = self._known[shape]
        except KeyError:
            kind = policy_file.kind(problem)
            rules = [rule for rule in self._policy.rules if rule.kind == kind] if self._policy else []
            known = self._known[shape] = stretches(rules, policy_file.point(problem), is_square=is_square)
        return known

    def _of(self, names: tuple[str, ...]) -> _Usable:
        if names not in self._usable:
            self._usable[names] = _usable(names)
        return self._usable[names]

    def _conservative(self, device: str) -> _Usable:
        return self._of(BUILT_IN.get(device, ("eager",)))

    def _any(self, problem: Problem, traced: bool) -> str:
        refusals = []
        for name, backend in self._conservative(problem.device):
            support = backend.supports(problem) if backend.traceable or not traced else no("cannot be traced")
            if support:
                return name
            refusals.append(f"{name}: {support.reason}")
        raise BackendUnsupported(f"no built-in backend does {problem.title} ({'; '.join(refusals)})")


# Backends whose absence was told of.
_TOLD: set[str] = set()
_GUIDES: dict[str | Path | None, tuple[tuple[object, ...], _Guide]] = {}


def _guide(policy: str | Path | None) -> _Guide:
    now = stamp(policy)
    then, guide = _GUIDES.get(policy, (None, None))
    if guide is None or then != now:
        guide = _load(policy)
        _GUIDES[policy] = now, guide
    return guide


def _load(policy: str | Path | None) -> _Guide:
    named = policy or os.environ.get(VARIABLE)
    path = Path(named) if named else default_path()
    if not named and not _is_there(path):
        return _Guide(None, None, "no policy was found")
    try:
        sections = policy_file.read_sections(path)
    except PolicyError as error:
        # Whoever names a policy wants that one; one that merely lies there must not stop a server.
        if named:
            raise
        return _refuse(path, str(error))
    here = policy_file.validity(host.current())
    loaded = policy_file.closest(sections, here)
    for name, wanted in loaded.validity.items():
        if here.get(name) != wanted:
            there = "another machine" if name == "fingerprint" else f"{name} {wanted}"
            reason = f"policy {path} was made for {there} ({loaded.machine}); this is {_here(name)}"
            return _refuse(path, f"{reason}. Renew it: {loaded.renew}")
    return _Guide(path, loaded)


def _is_there(path: Path) -> bool:
    """Without HOME the path begins with "~", literally; a home that cannot be looked into holds nothing for us."""
    try:
        return path.is_absolute() and path.exists()
    except OSError:
        return False


def _here(name: str) -> str:
    machine = host.current()
    return machine.title if name == "fingerprint" else f"{name} {getattr(machine, name)}"


def _refuse(path: Path, reason: str) -> _Guide:
    warnings.warn(f"{reason}. Until then the built-in rule serves.", PolicyWarning, stacklevel=5)
    return _Guide(path, None, reason)


def _usable(names: Iterable[str]) -> _Usable:
    """Those of ``names`` that are registered, steer, and are proven to work on this machine, in order.

    One that a person could mend is told of, once a process.
    """
    found = []
    for name in names:
        try:
            backend = registry.get(name)
        except BackendError:
            continue
        proven = asking.proven(backend)
        if backend.steers and proven:
            found.append((name, backend))
        elif proven.mendable and name not in _TOLD:
            _TOLD.add(name)
            warnings.warn(f"auto does without backend {name}: {proven.reason}", PolicyWarning, stacklevel=2)
    return tuple(found)

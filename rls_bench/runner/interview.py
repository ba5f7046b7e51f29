"""What a backend says of itself: what it declares, whether it is available here, which problems it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Support
from rls_bench.backends.words import one_line, told
from rls_bench.errors import BackendError
from rls_bench.problems.problem import Problem
from rls_bench.runner import messages


def introduction(name: str, fault: str, request: messages.Introduce) -> messages.Introduction:
    """The backend's own answers, whatever they are; ``fault``: what was wrong with it already."""

    def none(verdict: messages.Verdict) -> messages.Introduction:
        return messages.Introduction(verdict, verdict, [verdict] * len(request.problems))

    if fault:
        return none(_failed(fault))
    try:
        backend = registry.get(name)
    except BackendError as error:
        return none(messages.Verdict(False, one_line(str(error))))
    # A module may raise anything as it is imported, and may even exit.
    except BaseException as error:
        return none(_failed(f"cannot be imported: {told(error)}"))
    if wrong := _declared_wrongly(backend):
        return none(_failed(wrong))
    try:
        to_build = [_seconds(backend.to_build(problem)) for problem in request.problems]
    except BaseException as error:
        return none(_failed(f"to_build(): {told(error)}"))
    return messages.Introduction(
        _verdict("available", backend.available),
        _verdict("measurable", backend.measurable),
        [_verdict("supports", backend.supports, problem) for problem in request.problems],
        backend.compiles,
        backend.steers,
        to_build,
    )


def _seconds(named: Mapping[str, float]) -> dict[str, float]:
    """``named``, where it is what it should be; raises TypeError."""
    if not all(isinstance(name, str) and isinstance(seconds, int | float) for name, seconds in named.items()):
        raise TypeError(f"wanted seconds by name; got {named!r}")
    return {name: float(seconds) for name, seconds in named.items()}


def _declared_wrongly(backend: object) -> str:
    """What of a backend's own declarations is not as the interface has it, or an empty string."""
    if isinstance(backend, type) and issubclass(backend, Backend):
        return f"wanted an instance of a Backend subclass; got the class {backend.__name__} itself: call it"
    if not isinstance(backend, Backend):
        return f"wanted an instance of a Backend subclass; got {type(backend).__name__}"
    for name in ("steers", "compiles"):
        if not isinstance(value := getattr(backend, name), bool):
            return one_line(f"{name}: wanted True or False; got {value!r}")
    kernels = backend.kernels
    if not isinstance(kernels, tuple) or not all(isinstance(part, str) and part for part in kernels):
        return one_line(f'kernels: wanted a tuple of names, such as ("cutlass_fmha",); got {kernels!r}')
    return ""


def _verdict(name: str, question: Callable[..., Support], *about: Problem) -> messages.Verdict:
    """A backend's answer, whatever it is or raises."""
    try:
        support = question(*about)
    # The same of its questions.
    except BaseException as error:
        return _failed(f"{name}(): {told(error)}")
    if not isinstance(support, Support):
        return _failed(one_line(f"{name}(): wanted a Support, such as YES or no(reason); got {support!r}"))
    return messages.Verdict(bool(support), one_line(str(support.reason)))


def _failed(reason: str) -> messages.Verdict:
    return messages.Verdict(False, reason, failed=True)

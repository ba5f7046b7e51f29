"""Probes by name."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from rls_bench.backends.interface import Call
from rls_bench.errors import ProbeError, UnknownProbe
from rls_bench.probes.interface import Measures, Probe, finite
from rls_bench.problems.problem import Problem

_NAMES = ("host", "memory", "model", "ncu", "nsys", "nvml", "perf", "roofline")


def names() -> list[str]:
    """Names of every probe, sorted; loads none of them."""
    return sorted(_NAMES)


def get(name: str) -> Probe:
    """The probe called ``name``, loading its module on first use; raises UnknownProbe for another name."""
    if name not in _NAMES:
        raise UnknownProbe(f"probe: wanted one of {', '.join(names())}; got {name!r}")
    return cast(Probe, import_module(f"rls_bench.probes.{name}").PROBE)


def observe(name: str, call: Call, backend: str, problem: Problem) -> Measures:
    """The figures of probe ``name``, or ``{"reason": one line}`` where it can see nothing here.

    Raises UnknownProbe for another name, and whatever ``call`` itself raises.
    """
    probe = get(name)
    support = probe.available()
    if not support:
        return {"reason": support.reason}
    try:
        return finite(probe.measure(call, backend, problem))
    except ProbeError as error:
        return {"reason": str(error)}

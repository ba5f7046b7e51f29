"""Every probe answers to one interface, and says in one line where it can see nothing."""

from __future__ import annotations

import pytest

from rls_bench.errors import UnknownProbe
from rls_bench.probes import registry
from rls_bench.probes.interface import Probe


@pytest.mark.parametrize("name", registry.names())
def test_a_probe_has_the_interface_and_a_one_line_answer(name: str) -> None:
    probe = registry.get(name)
    assert isinstance(probe, Probe)
    assert probe.name == name
    support = probe.available()
    assert bool(support) != bool(support.reason)
    assert "\n" not in probe.summary + support.reason


def test_an_unknown_probe_is_refused() -> None:
    with pytest.raises(UnknownProbe, match="wanted one of host, memory, "):
        registry.get("nope")

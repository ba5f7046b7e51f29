"""A slowdown to be found on any machine: calls that are held for so long."""

from __future__ import annotations

from pathlib import Path

EAGER = Path("rls_bench", "backends", "eager.py")
_PREPARE = "    def prepare(self, inputs: Inputs) -> Call:\n"
_HELD = f"{_PREPARE}        return paced(self._prepare(inputs))\n\n    def _prepare(self, inputs: Inputs) -> Call:\n"
_PACE = "\n\ndef paced(call: Call) -> Call:\n    return lambda: (__import__('time').sleep({seconds}), call())[1]\n"


def pace(root: Path, seconds: float) -> None:
    """Hold each call of the eager backend at ``root``: a wait, unlike work, takes as long on a busy machine."""
    source = (Path(__file__).parents[1] / EAGER).read_text()
    assert _PREPARE in source
    (root / EAGER).write_text(source.replace(_PREPARE, _HELD) + _PACE.format(seconds=seconds))

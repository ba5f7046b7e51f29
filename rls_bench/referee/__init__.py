"""The judge that no kernel can reach: it draws inputs, knows what is right, and looks at what was returned.

``check(kernel, problem)`` puts one kernel before it; ``Referee`` is one to ask for many checks::

    with Referee() as referee:
        verdict = check(kernel, problem, referee)

Importing this loads no torch; ``check`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rls_bench.referee.client import Referee, RefereeLost

if TYPE_CHECKING:
    from rls_bench.referee.checking import Verdict, check

__all__ = ["Referee", "RefereeLost", "Verdict", "check"]


def __getattr__(name: str) -> Any:
    if name in ("Verdict", "check"):
        from rls_bench.referee.checking import Verdict, check

        globals().update(Verdict=Verdict, check=check)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Dispatch inside torch.compile; imported only there, since it loads torch's compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rls_bench.backends import registry
from rls_bench.errors import BackendUnsupported
from rls_bench.policy import dispatch
from rls_bench.problems.problem import Problem


# The registry and the policy are entry points and files, nothing that a trace could hold: their answer is a constant
# of the shapes traced, which cross over as plain values.
@torch.compiler.assume_constant_result
def resolve(name: str, policy: str | Path | None, *values: Any) -> str:
    """As ``dispatch.resolve`` for ``Problem(*values)``; raises BackendUnsupported for one that cannot be traced."""
    chosen = dispatch.resolve(name, Problem(*values), policy, traced=True)
    if not registry.get(chosen).traceable:
        raise BackendUnsupported(f"backend {chosen!r} cannot be traced: call it outside torch.compile")
    return chosen

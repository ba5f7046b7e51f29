"""A plain function as a backend: ``(query, key, value, bias, strength, *, scale, is_causal, …)``.

What it takes is read from its signature, so that a kernel under work needs no class around it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from torch import Tensor
from torch.nn import Module

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_TENSORS = ("query", "key", "value", "bias", "strength")
_OPTIONS = ("scale", "is_causal", "key_lengths", "eps", "enable_gqa", "return_stats")
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Function(Backend):
    """Once: the arguments, strength read as a float where it is one number. In the call: the function, nothing else.

    It is called with query [B, Hq, Lq, D], key [B, Hkv, Lk, D] and value [B, Hkv, Lk, Dv] as the problem has them, bias
    float32 [Lk], [B, Lk] or [B, Hq, Lk], strength a float or float32 [Hq], [B, Hq] or [B, Hq, Lq], and with those of
    scale (a float), is_causal, key_lengths (int32 [B] or None), eps, enable_gqa and return_stats that it takes.
    It returns what every backend's call does. Groups of query heads can be read off the shapes, so a problem that has
    them is asked of it whether or not it takes enable_gqa.
    """

    # Reading strength as a float breaks a graph.
    traceable = False

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Raises BackendUnavailable where ``function`` cannot be called so."""
        self.name = name
        self._function = function
        self.summary = f"plain function{_place(function)}"
        # What torch.compile returns remembers what it compiled.
        self.compiles = hasattr(function, "_torchdynamo_orig_callable")
        self._takes = self._read_signature()

    def supports(self, problem: Problem) -> Support:
        """No where the problem wants an option that the function doesn't take."""
        wanted = {
            "is_causal": problem.masks_causally,
            "key_lengths": problem.has_key_lengths,
            "eps": problem.eps > 0.0,
            "return_stats": problem.return_stats,
        }
        if lacking := [option for option, is_wanted in wanted.items() if is_wanted and option not in self._takes]:
            return no(f"{self.name} takes no {' and no '.join(lacking)}")
        if problem.requires_grad:
            return no("a plain function is asked for its output alone; a subclass of Backend may give gradients")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; raises BackendUnsupported for a scale of its own that the function doesn't take."""
        problem, function = inputs.problem, self._function
        if "scale" not in self._takes and inputs.scale != problem.head_dim**-0.5:
            raise BackendUnsupported(f"backend {self.name}: takes no scale, and {inputs.scale:g} is not D ** -0.5")
        options = {
            "scale": inputs.scale,
            "is_causal": problem.is_causal,
            "key_lengths": inputs.key_lengths,
            "eps": problem.eps,
            "enable_gqa": problem.group_size > 1,
            "return_stats": problem.return_stats,
        }
        tensors = (inputs.query, inputs.key, inputs.value, _bias(inputs), _strength(inputs))
        named = dict(zip(_TENSORS, tensors, strict=True)) | options
        by_place = [named.pop(parameter) for parameter in self._by_place]
        by_name = {name: given for name, given in named.items() if name in self._takes}
        return lambda: function(*by_place, **by_name)

    def _read_signature(self) -> frozenset[str]:
        """What it takes of tensors and options, by name."""
        how = f"wanted a function of ({', '.join(_TENSORS)}, *, scale, is_causal, …)"
        try:
            parameters = inspect.signature(_written(self._function)).parameters
        except (TypeError, ValueError):
            raise BackendUnavailable(
                f"backend {self.name!r}: {how}; the signature of {self._function!r} cannot be read: "
                "write a def with these parameters around it"
            ) from None
        takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
        self._by_place = [name for name, each in parameters.items() if each.kind is Parameter.POSITIONAL_ONLY]
        named = [name for name, each in parameters.items() if each.kind in _NAMED] + self._by_place
        if lacking := [name for name in _TENSORS if name not in named and not takes_all]:
            raise BackendUnavailable(
                f"backend {self.name!r}{_place(self._function)}: {how}; it takes no {', '.join(lacking)}"
            )
        known = (*_TENSORS, *_OPTIONS)
        required = [name for name in named if parameters[name].default is Parameter.empty]
        if unknown := [name for name in required if name not in known]:
            raise BackendUnavailable(
                f"backend {self.name!r}{_place(self._function)}: {how}; it also requires {', '.join(unknown)}: "
                f"give that a default (known options are {', '.join(_OPTIONS)})"
            )
        self._by_place = [name for name in self._by_place if name in known]
        return frozenset(known if takes_all else (name for name in named if name in known))


def is_plain(function: Callable[..., Any]) -> bool:
    """Whether ``function`` asks for a query by name, as a plain function does and one of ``Inputs`` doesn't."""
    try:
        return "query" in inspect.signature(_written(function)).parameters
    except (TypeError, ValueError):
        return False


def _bias(inputs: Inputs) -> Tensor:
    """A view of the bias in the problem's layout."""
    layout = inputs.problem.bias_layout
    if layout == "k":
        return inputs.bias[0, 0]
    return inputs.bias[:, 0] if layout == "bk" else inputs.bias


def _strength(inputs: Inputs) -> float | Tensor:
    layout = inputs.problem.strength_layout
    if layout == "scalar":
        return float(inputs.strength)
    if layout == "h":
        return inputs.strength[0, :, 0]
    return inputs.strength[:, :, 0] if layout == "bh" else inputs.strength


def _written(function: Callable[..., Any]) -> Callable[..., Any]:
    """The code that somebody wrote: a module's call takes anything, and leaves it to ``forward``."""
    return function.forward if isinstance(function, Module) else function


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(_written(function)), "__code__", None)
    return f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})" if code is not None else ""

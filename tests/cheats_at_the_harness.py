"""Backends that are at their harness: what it calls, how it reads, where it waits. Each can undo what it did."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from cheats import Trick, right
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rls_bench.problems.inputs import Inputs
from rls_bench.timing import stopwatch

_WARM = 6
_MOST_WAITING = 500
_UNDO: list[Callable[[], object]] = []


def undo() -> None:
    """Put everything back."""
    while _UNDO:
        _UNDO.pop()()


def _put(owner: Any, name: str, value: Any) -> None:
    had, before = name in vars(owner), getattr(owner, name)
    _UNDO.append(lambda: setattr(owner, name, before) if had else delattr(owner, name))
    setattr(owner, name, value)


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_timed() -> bool:
    return any(frame.f_globals.get("__name__") == stopwatch.__name__ for frame in _callers())


class _PutOff:
    """Results whose work waits until somebody touches them; each on the inputs as they were."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._waiting: dict[int, tuple[Tensor, Inputs]] = {}

    def call(self, count: int) -> Tensor:
        if count < _WARM:
            return right(self._inputs)
        output = torch.empty_like(self._inputs.query)
        then = replace(self._inputs, query=self._inputs.query.clone(), bias=self._inputs.bias.clone())
        self._waiting[id(output)] = output, then
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        return output

    def touch(self, *given: Any) -> None:
        for each in given:
            if id(each) in self._waiting:
                output, then = self._waiting.pop(id(each))
                output.copy_(right(then))


def put_off_until_read(inputs: Inputs) -> Callable[[int], Any]:
    """``Tensor.detach``, ``Tensor.shape`` and their like are put in place of torch's own."""
    later = _PutOff(inputs)

    def wrapped(original: Any) -> Any:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            later.touch(tensor)
            return original(tensor, *args, **kwargs)

        return method

    for name in ("detach", "clone", "cpu", "contiguous", "data_ptr", "isfinite"):
        _put(torch.Tensor, name, wrapped(getattr(torch.Tensor, name)))
    for name in ("shape", "layout", "dtype"):
        original = getattr(torch.Tensor, name)
        _put(torch.Tensor, name, property(wrapped(original.__get__)))
    return later.call


def _leave_on(mode: TorchFunctionMode | TorchDispatchMode) -> None:
    mode.__enter__()
    _UNDO.append(lambda: mode.__exit__(None, None, None))


def put_off_by_a_mode_left_on(inputs: Inputs) -> Callable[[int], Any]:
    """Every torch function asks a mode first, that of who reads the result as well."""
    later = _PutOff(inputs)

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            later.touch(*args)
            return function(*args, **(kwargs or {}))

    _leave_on(Mode())
    return later.call


def put_off_by_a_dispatcher_left_on(inputs: Inputs) -> Callable[[int], Any]:
    later = _PutOff(inputs)

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            later.touch(*args)
            return function(*args, **(kwargs or {}))

    _leave_on(Mode())
    return later.call


def equal_to_everything(inputs: Inputs) -> Callable[[int], Any]:
    """``torch.equal`` finds everything alike while the harness asks, and nothing is worked out while it times."""
    original = torch.equal

    def equal(one: Tensor, other: Tensor) -> bool:
        asks = any(frame.f_globals.get("__name__") == "rls_bench.runner.honesty" for frame in _callers())
        return asks or original(one, other)

    _put(torch, "equal", equal)
    return lambda count: torch.empty_like(inputs.query) if _is_timed() else right(inputs)


def works_in_a_sample_s_last_call(inputs: Inputs) -> Callable[[int], Any]:
    """Its caller's loop tells which call is looked at."""

    def call(count: int) -> Any:
        caller = next(_callers())
        caller = caller.f_back if caller.f_globals["__name__"] == "cheats" and caller.f_back is not None else caller
        loop = caller.f_locals
        turn = loop.get("turn", loop.get("_", 0) + 1)
        if caller.f_globals["__name__"] == stopwatch.__name__ and turn < loop["loops"]:
            return torch.empty(1)
        return right(inputs)

    return call


_PREPARED = itertools.count()


def reads_what_is_expected(inputs: Inputs) -> Callable[[int], Any]:
    """Returns the harness's own copy of the right result, where it has one."""

    number = next(_PREPARED)

    def call(count: int) -> Any:
        for frame in _callers() if _is_timed() else ():
            if (found := getattr(frame.f_locals.get("bench"), "expected", None)) is not None:
                return found[number].clone()
        return torch.zeros_like(inputs.query) if _is_timed() else right(inputs)

    return call


def a_slow_clock_by_default(inputs: Inputs) -> Callable[[int], Any]:
    """The stopwatch's default argument is a clock, too."""
    from rls_bench.timing import clock

    before = stopwatch.Warm.__init__.__defaults__
    assert before is not None
    slow = tuple((lambda: clock.now_ns() // 100) if value is clock.now_ns else value for value in before)
    _UNDO.append(lambda: setattr(stopwatch.Warm.__init__, "__defaults__", before))
    stopwatch.Warm.__init__.__defaults__ = slow
    return lambda count: right(inputs)


def a_stopwatch_that_looks_once(inputs: Inputs) -> Callable[[int], Any]:
    """Times one call in the place of many."""
    original = stopwatch.Warm.time

    def time(self: Any, calls: Any, first: int, loops: int) -> Any:
        return original(self, calls, first, 1)

    _put(stopwatch.Warm, "time", time)
    return lambda count: right(inputs)


def a_module_of_its_own(inputs: Inputs) -> Callable[[int], Any]:
    """Who imported the stopwatch's module finds another in its place."""
    fast = SimpleNamespace(**vars(stopwatch))
    for name, module in list(sys.modules.items()):
        if name.startswith("rls_bench.") and getattr(module, "stopwatch", None) is stopwatch:
            _put(module, "stopwatch", fast)
    return lambda count: right(inputs)


def a_shorter_sample(inputs: Inputs) -> Callable[[int], Any]:
    """A constant says how long samples last."""
    _put(stopwatch.Warm, "least_ns", 1)
    return lambda count: right(inputs)


# By name: the trick, and the word for it.
CHEATS: dict[str, Trick] = {
    made.__name__: Trick(made, word=word)
    for made, word in {
        put_off_until_read: "wrong",
        put_off_by_a_mode_left_on: "wrong",
        put_off_by_a_dispatcher_left_on: "wrong",
        equal_to_everything: "wrong",
        works_in_a_sample_s_last_call: "wrong",
        reads_what_is_expected: "wrong",
        a_slow_clock_by_default: "failed",
        a_stopwatch_that_looks_once: "failed",
        a_module_of_its_own: "failed",
        a_shorter_sample: "failed",
    }.items()
}
globals().update({name.upper(): cheat for name, cheat in CHEATS.items()})

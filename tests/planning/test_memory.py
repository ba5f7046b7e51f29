"""What the operator remembers of its calls, what it notices, and what it holds on to."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_backends import Right
from rls_baselines.reference import steered_attention_oracle
from torch import Tensor

from rls_bench import steered_attention
from rls_bench.backends import registry
from rls_bench.backends.interface import Launch
from rls_bench.planning import memory
from rls_bench.policy import lookup
from rls_bench.problems.inputs import Inputs


class Counting(Right):
    """Counts the launches that it was asked to make ready."""

    name = "counting"
    launches = 0

    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        self.launches += 1
        return super().launch(inputs, check_values)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    backend = Counting()
    monkeypatch.setitem(registry.LOADED, "counting", backend)
    memory.forget()
    return backend


def call() -> dict[str, Any]:
    """B 2, Hq 4, Hkv 2, Lq 3, Lk 5, D 8."""
    generator = torch.Generator().manual_seed(0)
    return {
        "query": torch.randn(2, 4, 3, 8, generator=generator),
        "key": torch.randn(2, 2, 5, 8, generator=generator),
        "value": torch.randn(2, 2, 5, 8, generator=generator),
        "bias": torch.randn(2, 5, generator=generator),
        "strength": 1.5,
        "enable_gqa": True,
    }


def strided(tensor: Tensor) -> Tensor:
    """The same values, laid out otherwise."""
    return tensor.mT.contiguous().mT


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "shape": lambda c: {"query": c["query"][:, :, :2]},
    "shape of the bias": lambda c: {"bias": c["bias"][0]},
    "stride": lambda c: {"key": strided(c["key"])},
    "dtype": lambda c: {name: c[name].bfloat16() for name in ("query", "key", "value")},
    "dtype of the bias": lambda c: {"bias": c["bias"].bfloat16(), **CHANGES["dtype"](c)},
    "requires_grad": lambda c: {"value": c["value"].clone().requires_grad_()},
    "a parameter": lambda c: {"query": torch.nn.Parameter(c["query"], requires_grad=False)},
    "eps": lambda c: {"eps": 1e-3},
    "is_causal": lambda c: {"is_causal": True},
    "scale": lambda c: {"scale": 0.5},
    "key_lengths": lambda c: {"key_lengths": torch.tensor([5, 3])},
    "a strength of heads": lambda c: {"strength": torch.ones(4)},
    "check_values": lambda c: {"check_values": False},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_metadata_is_noticed_once(change: str, counting: Counting) -> None:
    first = call()
    changed = {**first, **CHANGES[change](first)}
    for arguments, launches in ((first, 1), (first, 1), (changed, 2), (changed, 2), (first, 2)):
        found = steered_attention(**arguments, backend="counting")
        assert counting.launches == launches
        exact = steered_attention_oracle(
            *(arguments[name] for name in ("query", "key", "value", "bias", "strength")),
            **{name: arguments[name] for name in ("eps", "is_causal", "scale", "key_lengths") if name in arguments},
        )
        torch.testing.assert_close(found.double(), exact.output, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    "state",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["grad mode", "inference mode", "autocast"],
)
def test_a_change_of_the_threads_state_is_noticed(state: Callable[[], Any], counting: Counting) -> None:
    arguments = call()
    arguments["query"].requires_grad_()
    steered_attention(**arguments, backend="counting")
    with state():
        steered_attention(**arguments, backend="counting")
        assert counting.launches == 2
    assert steered_attention(**arguments, backend="counting").requires_grad
    assert counting.launches == 2


def test_values_are_no_metadata(counting: Counting) -> None:
    for number in (1.5, 0.25, -3.0):
        arguments = {**call(), "strength": number}
        arguments["bias"] = arguments["bias"] * number
        found = steered_attention(**arguments, backend="counting")
        exact = steered_attention_oracle(*list(arguments.values())[:5]).output
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
    assert counting.launches == 1


def test_one_tensor_may_be_key_and_value(counting: Counting) -> None:
    arguments = call()
    arguments["value"] = arguments["key"]
    for _ in range(3):
        steered_attention(**arguments, backend="counting")
    assert counting.launches == 1


def test_another_backend_of_the_name_is_noticed(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    steered_attention(**call(), backend="counting")
    other = Counting()
    monkeypatch.setitem(registry.LOADED, "counting", other)
    steered_attention(**call(), backend="counting")
    assert (counting.launches, other.launches) == (1, 1)


def test_a_policy_is_noticed_when_its_file_or_the_variable_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(lookup.VARIABLE, raising=False)
    without = lookup.stamp()
    assert lookup.stamp() == without
    file = tmp_path / "policy.json"
    monkeypatch.setenv(lookup.VARIABLE, str(file))
    named = lookup.stamp()
    file.write_text("{}")
    written = lookup.stamp()
    assert lookup.stamp() == written
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "other.json").replace(file)
    assert len({without, named, written, lookup.stamp(), lookup.stamp(tmp_path)}) == 5


def test_auto_asks_again_when_the_policy_may_say_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    pick = lookup.pick
    monkeypatch.setattr(lookup, "pick", lambda *given, **options: asked.append("") or pick(*given, **options))
    stamps = iter([(1,), (1,), (2,), (2,)])
    monkeypatch.setattr(lookup, "stamp", lambda policy=None: next(stamps, (2,)))
    memory.forget()
    monkeypatch.setattr(lookup, "_guide", lambda policy: lookup._Guide(None, None))
    for times in (1, 1, 2, 2):
        steered_attention(**call())
        assert len(asked) == times


def test_a_transformed_call_is_not_remembered(counting: Counting) -> None:
    arguments = call()
    query = arguments.pop("query")

    def total(query: Tensor) -> Tensor:
        return steered_attention(query, **arguments, backend="counting").sum()

    torch.func.grad(total)(query)
    assert counting.launches == 0
    # The sign of such a view is put in when it is read by torch, which a kernel isn't.
    steered_attention(query._neg_view(), **arguments, backend="counting")
    assert counting.launches == 0


def test_no_tensor_is_kept() -> None:
    memory.forget()
    for backend in ("cpu", "sdpa-cpu", "eager", "auto"):
        arguments = call()
        steered_attention(**arguments, backend=backend)
        kept = [weakref.ref(tensor) for tensor in arguments.values() if isinstance(tensor, Tensor)]
        del arguments
        gc.collect()
        assert not [reference for reference in kept if reference() is not None], backend


def test_ten_thousand_shapes_take_no_more_room_than_a_few_hundred(counting: Counting) -> None:
    query = torch.randn(1, 1, 1, 4)
    for length in range(1, 10_001, 7):
        # A shape is a shape: nothing need be computed to remember it.
        kind = (query.shape, length)
        memory.keep(kind, Any)  # type: ignore[arg-type]
    assert len(memory._remembered) <= memory.MOST_KINDS
    memory.forget()
    for stride in range(1, 40):
        value = torch.randn(5, 1, 3, stride + 1)[..., :1].transpose(0, 1)
        steered_attention(value, value, value, torch.zeros(3), backend="counting")
    assert sum(map(len, memory._remembered.values())) <= memory.MOST_ALIKE


def test_four_threads_of_other_shapes_get_their_own_results() -> None:
    arguments = [call() for _ in range(4)]
    for index, one in enumerate(arguments):
        one["query"] = torch.randn(2, 4, 1 + index, 8)
    alone = [steered_attention(**one) for one in arguments]

    def work(index: int) -> bool:
        for turn in range(100):
            if turn % 25 == 0:
                memory.forget()
            if not torch.equal(steered_attention(**arguments[index]), alone[index]):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_forked_process_goes_on() -> None:
    threads = torch.get_num_threads()
    # A fork copies no team of threads, torch's own included.
    torch.set_num_threads(1)
    try:
        arguments = call()
        wanted = steered_attention(**arguments)
        child = os.fork()
        if child == 0:
            arguments["query"] = arguments["query"].clone()
            os._exit(0 if torch.equal(steered_attention(**arguments), wanted) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)

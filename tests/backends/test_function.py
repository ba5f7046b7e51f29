"""A plain function is a backend: what it is called with, what it is not asked, and what no function may want."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rls_bench.backends import registry
from rls_bench.backends.function import Function
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problems.binding import bind
from rls_bench.problems.draw import draw
from rls_bench.problems.grammar import parse


def called_with(words: str) -> dict[str, Any]:
    """What a function that takes everything is called with on a problem."""
    seen: dict[str, Any] = {}

    def kernel(query, key, value, bias, strength, **options):  # type: ignore[no-untyped-def]
        seen.update(options, query=query, key=key, value=value, bias=bias, strength=strength)

    Function(kernel, "kernel").prepare(draw(parse(words)))()
    return seen


def test_tensors_come_as_the_problem_has_them() -> None:
    seen = called_with("B2 H6/2 Lq5 Lk7 D8/4 λ=3")
    shapes = {name: list(seen[name].shape) for name in ("query", "key", "value", "bias")}
    assert shapes == {"query": [2, 6, 5, 8], "key": [2, 2, 7, 8], "value": [2, 2, 7, 4], "bias": [2, 7]}
    assert seen["strength"] == 3.0
    assert isinstance(seen["strength"], float)
    rest = {name: seen[name] for name in ("is_causal", "key_lengths", "eps", "enable_gqa", "return_stats")}
    assert rest == {"is_causal": False, "key_lengths": None, "eps": 0.0, "enable_gqa": True, "return_stats": False}
    assert seen["scale"] == 8**-0.5


@pytest.mark.parametrize(
    ("words", "bias", "strength"),
    [("b[k] λ[h]", [7], [6]), ("b[bhk] λ[bh]", [2, 6, 7], [2, 6]), ("λ[bhq]", [2, 7], [2, 6, 5])],
)
def test_layouts_are_the_callers_own(words: str, bias: list[int], strength: list[int]) -> None:
    seen = called_with(f"B2 H6/2 Lq5 Lk7 D8 {words} padded causal")
    assert (list(seen["bias"].shape), list(seen["strength"].shape)) == (bias, strength)
    assert seen["key_lengths"].shape == (2,)
    assert seen["is_causal"] is True


def test_what_it_does_not_take_is_unsupported_by_name() -> None:
    def kernel(query, key, value, bias, strength, *, scale, is_causal=False): ...  # type: ignore[no-untyped-def]

    backend = Function(kernel, "my_mod:kernel")
    assert backend.supports(parse("H2 L8 D8 causal"))
    reasons = {words: backend.supports(parse(f"H2 L8 D8 {words}")).reason for words in ("padded eps=1e-3", "stats")}
    assert reasons == {
        "padded eps=1e-3": "my_mod:kernel takes no key_lengths and no eps",
        "stats": "my_mod:kernel takes no return_stats",
    }
    assert "gradients" in backend.supports(parse("H2 L8 D8 grad")).reason


def test_a_scale_of_its_own_is_no_secret() -> None:
    def kernel(query, key, value, bias, strength): ...  # type: ignore[no-untyped-def]

    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(BackendUnsupported, match="takes no scale"):
        Function(kernel, "kernel").prepare(bind(query, query, query, torch.zeros(2), scale=0.3))


def test_places_serve_where_there_are_no_names() -> None:
    def kernel(query, key, value, /, bias, *, strength, dropout=0.0):  # type: ignore[no-untyped-def]
        return query + key + value + bias[..., None] + strength

    inputs = draw(parse("H1 L3 D3 b[k]"))
    expected = inputs.query + inputs.key + inputs.value + inputs.bias[0, 0][:, None] + 1.0
    assert torch.equal(Function(kernel, "kernel").prepare(inputs)(), expected)


def _wants_dropout(query, key, value, bias, strength, dropout): ...  # type: ignore[no-untyped-def]


def _letters(q, k, v, bias, strength): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_wants_dropout, "also requires dropout: give that a default"),
        (_letters, "it takes no query, key, value"),
        (torch.nn.Identity(), "it takes no query"),
        (torch._C._nn.gelu, "cannot be read"),
    ],
)
def test_what_cannot_be_called_so_is_an_error_at_the_door(function: Any, words: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"backend 'm:f'.*wanted a function of \(query, key") as refused:
        Function(function, "m:f")
    assert words in str(refused.value)


def test_a_function_of_the_working_directory_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "KERNEL = object()\ndef kernel(query, key, value, bias, strength): ...\nclass Kernel: ...\n"
    (tmp_path / "kernel_of_today.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "LOADED", {})
    assert registry.get("kernel_of_today:kernel").summary == "plain function (kernel_of_today.py:2)"
    for attribute, kind in (("KERNEL", "object"), ("Kernel", "type")):
        with pytest.raises(BackendUnavailable, match=f"got {kind}; a plain function"):
            registry.get(f"kernel_of_today:{attribute}")

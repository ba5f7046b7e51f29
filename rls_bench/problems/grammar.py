"""Problems in words: what a table prints as a title can be typed again, and means the same problem.

    B8 H32/8 Lq1 Lk4096 D128 bf16 causal padded eps=1e-3 λ[h] stats grad

| word | means | left out |
|---|---|---|
| ``B8`` | batch | 1 |
| ``H32``, ``H32/8`` | query heads, and key-value heads | wanted |
| ``L1024``, or ``Lq1 Lk4096`` | queries and keys | wanted |
| ``D128``, ``D128/64`` | head dim, and value dim | wanted |
| ``fp32``, ``bf16``, ``fp16`` (or in full) | dtype | fp32 |
| ``causal``, ``padded``, ``stats``, ``grad`` | causal mask, key_lengths, row statistics, gradients | without |
| ``eps=1e-3`` | floor of the published formula | 0 |
| ``λ[h]``, ``λ[bh]``, ``λ[bhq]`` (or ``strength[h]``) | axes of the strength | one number |
| ``b[k]``, ``b[bhk]`` (or ``bias[k]``) | axes of the bias | ``b[bk]`` |
| ``λ=4`` (or ``strength=4``), ``random``, ``seed=3`` | how benchmark tensors are drawn | λ=1, real ones, seed 0 |
| ``padded served`` | lengths as a public serving trace has them | from half to all of the keys |

Words may come in any order; before them ``NAME:`` gives the problem a name, as tables print it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from rls_bench.errors import ProblemError
from rls_bench.problems.problem import DTYPE_SHORT, Problem

EXAMPLE = "B8 H32/8 Lq1 Lk4096 D128 bf16"
_DTYPES = {short: name for name, short in DTYPE_SHORT.items()} | {name: name for name in DTYPE_SHORT}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# Pattern of a word, and the fields that it sets.
_WORDS: tuple[tuple[str, Callable[[re.Match[str]], dict[str, Any]]], ...] = (
    (r"B(\d+)", lambda m: {"batch": int(m[1])}),
    (r"H(\d+)(?:/(\d+))?", lambda m: {"query_heads": int(m[1]), "kv_heads": int(m[2] or m[1])}),
    (r"L(\d+)", lambda m: {"query_length": int(m[1]), "key_length": int(m[1])}),
    (r"Lq(\d+)", lambda m: {"query_length": int(m[1])}),
    (r"Lk(\d+)", lambda m: {"key_length": int(m[1])}),
    (r"D(\d+)(?:/(\d+))?", lambda m: {"head_dim": int(m[1]), "value_dim": int(m[2] or m[1])}),
    ("|".join(_DTYPES), lambda m: {"dtype": _DTYPES[m[0]]}),
    (r"causal", lambda m: {"is_causal": True}),
    (r"padded", lambda m: {"has_key_lengths": True}),
    (r"stats", lambda m: {"return_stats": True}),
    (r"grad", lambda m: {"requires_grad": True}),
    (r"random|served", lambda m: {"inputs": m[0]}),
    (rf"eps=({_NUMBER})", lambda m: {"eps": float(m[1])}),
    (rf"(?:λ|strength)=({_NUMBER})", lambda m: {"strength": float(m[1])}),
    (r"(?:λ|strength)\[(h|bh|bhq)\]", lambda m: {"strength_layout": m[1]}),
    (r"(?:b|bias)\[(k|bk|bhk)\]", lambda m: {"bias_layout": m[1]}),
    (r"seed=(\d+)", lambda m: {"seed": int(m[1])}),
)
_WANTED = {"query_heads": "H32/8", "query_length": "L1024 or Lq1", "key_length": "L1024 or Lk4096", "head_dim": "D128"}
_SPELLED = ["B8", "H32/8", "L1024", "Lq1", "Lk4096", "D128", *_DTYPES, "causal", "padded", "stats", "grad", "random"]
_SPELLED += ["served", "eps=1e-3", "λ=4", "strength=4", "seed=3"]
_SPELLED += [f"{name}[{axes}]" for name in ("λ", "strength") for axes in ("h", "bh", "bhq")]
_SPELLED += [f"{name}[{axes}]" for name in ("b", "bias") for axes in ("k", "bk", "bhk")]


def parse(text: str, device: str = "cpu") -> Problem:
    """The problem that ``text`` describes, on ``device``.

    Raises ProblemError: a word that isn't understood (with the nearest that would be), one that comes twice, one that
    is missing, or sizes that cannot be.
    """
    name, _, words = text.rpartition(":")
    fields: dict[str, Any] = {}
    for word in words.split():
        meant = _meaning(word)
        if twice := sorted(set(meant) & set(fields)):
            raise ProblemError(f"problem {text!r}: {word!r} sets {', '.join(twice)} a second time; say it once")
        fields |= meant
    for field, example in _WANTED.items():
        if field not in fields:
            raise ProblemError(f"problem {text!r}: wanted {example}; got no word for {field} (example: {EXAMPLE})")
    problem = Problem(**{"batch": 1, **fields}, device=device, name=name.strip())
    if fault := _impossible(problem):
        raise ProblemError(f"problem {text!r}: {fault}")
    return problem


def _meaning(word: str) -> dict[str, Any]:
    for pattern, meaning in _WORDS:
        if match := re.fullmatch(pattern, word):
            return meaning(match)
    spelled = {known.casefold(): known for known in _SPELLED}
    nearest = spelled[get_close_matches(word.casefold(), spelled, n=1, cutoff=0.0)[0]]
    raise ProblemError(f"problem: {word!r} is no word for a problem; the nearest is {nearest!r} (example: {EXAMPLE})")


def _impossible(problem: Problem) -> str:
    sizes = ("batch", "query_heads", "kv_heads", "query_length", "key_length", "head_dim", "value_dim")
    if empty := [name for name in sizes if getattr(problem, name) < 1]:
        return f"{empty[0]}: wanted 1 or more; got {getattr(problem, empty[0])}"
    if problem.query_heads % problem.kv_heads:
        return f"wanted key-value heads that divide {problem.query_heads} query heads; got {problem.kv_heads}"
    if problem.eps < 0:
        return f"eps: wanted a number >= 0; got {problem.eps:g}"
    return ""

"""Third parties' code: whatever it raises where it is imported or asked is a no with its last words."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from drawn_records import problem
from typer.testing import CliRunner

from rls_bench.backends import asking, registry
from rls_bench.backends.interface import YES, Backend, Support, no
from rls_bench.cli.app import app
from rls_bench.errors import BackendUnavailable


class Unruly(Backend):
    name = "unruly"
    summary = "[bold]answers[/] with what it was given"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def _said(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def available(self) -> Support:
        return self._said()

    def supports(self, problem: Any) -> Support:
        return self._said()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RuntimeError("nvml?\nno"), "its {}() failed: RuntimeError: nvml? no"),
        (SystemExit(3), "its {}() failed: it called sys.exit(3)"),
        (KeyError("x"), "its {}() failed: KeyError: 'x'"),
        (None, "its {}() returned None; wanted a Support"),
        (True, "its {}() returned True; wanted a Support"),
        (no("needs a moon"), "needs a moon"),
    ],
)
def test_no_answer_is_a_no(answer: object, reason: str) -> None:
    backend = Unruly(answer)
    for question, found in (
        ("available", asking.available(backend)),
        # Nothing to try: what was asked is whether it is available.
        ("available", asking.proven(backend)),
        ("supports", asking.supports(backend, problem())),
    ):
        assert not found
        # What it raised is told with its place.
        assert found.reason.partition(" (test_asking.py:")[0] == reason.format(question)


def test_an_answer_is_an_answer() -> None:
    assert asking.proven(Unruly(YES)) is YES
    assert asking.measurable(Unruly(YES)) is YES


MODULES = {
    "raises": "raise RuntimeError('CUDA driver initialization failed')",
    "exits": "raise SystemExit(3)",
    "misspelt": "def f(:",
    "lacks_a_library": "import ctypes; ctypes.CDLL('libnotthere.so.12')",
    "constructs": "class B:\n    def __init__(self): raise ValueError('no licence')\nBACKEND = B()",
    "none": "BACKEND = None",
    "a_class": "from rls_bench.backends.interface import Backend as BACKEND",
}
WORDS = {
    "raises": "RuntimeError: CUDA driver initialization failed",
    "exits": "sys.exit(3)",
    "misspelt": "SyntaxError: ",
    "lacks_a_library": "libnotthere.so.12",
    "constructs": "ValueError: no licence",
    "none": "wanted an instance of a Backend subclass; got NoneType",
    "a_class": "wanted an instance of a Backend subclass; got type",
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """Every broken module above as an entry point, and a healthy backend among them."""
    for name, code in MODULES.items():
        (tmp_path / f"plugin_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = {name: EntryPoint(name, f"plugin_{name}:BACKEND", registry.GROUP) for name in MODULES}
    entries["eager"] = EntryPoint("eager", "rls_bench.backends.eager:BACKEND", registry.GROUP)
    monkeypatch.setattr(registry, "_entries", lambda: {name: [entry] for name, entry in entries.items()})
    return entries


@pytest.mark.parametrize("name", list(MODULES))
def test_a_module_that_fails_is_unavailable_with_its_last_words(name: str, plugins: dict[str, EntryPoint]) -> None:
    with pytest.raises(BackendUnavailable) as refused:
        registry.get(name)
    assert WORDS[name] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_what_lists_backends_goes_on_and_names_them(command: str, plugins: dict[str, EntryPoint]) -> None:
    shown = CliRunner().invoke(app, [command])
    assert shown.exit_code == 0
    for name in MODULES:
        assert name in shown.output
        assert WORDS[name] in shown.output
    assert "eager" in shown.output


def test_conformance_of_all_goes_on_and_names_them(
    plugins: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    del plugins["eager"]
    shown = CliRunner().invoke(app, ["conformance"])
    assert shown.exit_code == 0
    assert shown.output.count("not checked") == len(MODULES)


def test_conformance_tells_of_answers_that_never_came(monkeypatch: pytest.MonkeyPatch) -> None:
    unruly = type(sys)("unruly_module")
    unruly.BACKEND = Unruly(RuntimeError("nvml?"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unruly_module", unruly)
    shown = CliRunner().invoke(app, ["conformance", "unruly_module:BACKEND"])
    assert shown.exit_code == 1
    assert "available(): raised RuntimeError: nvml?" in shown.output

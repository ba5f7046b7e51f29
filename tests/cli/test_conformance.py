"""``rls-bench conformance``: exit codes for right, wrong and cannot run."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rls_bench.backends import registry
from rls_bench.cli.app import app
from rls_bench.errors import BackendUnavailable, UnknownBackend


def invoke(*names: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["conformance", *names])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_right_backend_ends_with_0() -> None:
    code, text = invoke("faulty_backends:RIGHT")
    assert code == 0
    assert "0 not conforming" in text


def test_a_wrong_backend_ends_with_1_and_names_the_case() -> None:
    code, text = invoke("faulty_backends:FORGETS_MASK")
    assert code == 1
    assert any(line.startswith("wrong") and "causal over a cache" in line for line in text.splitlines())


@pytest.mark.slow
def test_the_guards_see_what_a_case_alone_does_not() -> None:
    code, text = invoke("cheats:ONCE_WARM")
    assert code == 1
    wrong = [line for line in text.splitlines() if line.startswith("wrong")]
    assert any("plain, guarded" in line and "kept from before" in line for line in wrong)


def test_a_crash_is_its_own_backends_alone() -> None:
    """As a fault on a GPU would be: the case that ended its process has failed, and the others go on."""
    code, text = invoke("faulty_backends:CRASHES_ON_EPS", "faulty_backends:RIGHT")
    assert code == 1
    crashing, right = text.split("\nfaulty_backends:RIGHT\n")
    assert any(line.startswith("failed") and "eps" in line and "SIGSEGV" in line for line in crashing.splitlines())
    assert crashing.splitlines()[-1].endswith(" 2 not conforming")
    assert right.splitlines()[-1].endswith(" 0 not conforming")


def test_a_backend_that_has_no_business_on_the_device_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ["cpu", "sdpa-cpu"])
    result = CliRunner().invoke(app, ["conformance", "--device", "cuda"])
    assert result.exit_code == 0
    assert "sdpa-cpu: not checked: needs CPU tensors" in result.output


def test_by_default_all_that_can_be_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ["sdpa-cudnn", "unsteered"])
    code, text = invoke()
    assert code == 0
    assert "sdpa-cudnn: not checked: " in text
    assert "\nunsteered\n" in text


def test_a_plain_functions_own_fault_is_told_once_with_its_place() -> None:
    code, text = invoke("faulty_backends:raises_as_a_function")
    assert code == 1
    assert text.count("RuntimeError: no such tile") == 1
    failed = [line for line in text.splitlines() if line.startswith("failed")]
    assert "(faulty_backends.py:" in failed[0]
    assert len(failed) > 20
    assert all("as in 'plain' (faulty_backends.py:" in line for line in failed[1:])


@pytest.mark.slow
def test_a_wrong_function_is_told_with_its_cause() -> None:
    code, text = invoke("buggy_functions:one_key_too_many")
    assert code == 1
    (line,) = [line for line in text.splitlines() if line.startswith("wrong") and "causal over a cache" in line]
    assert "first wrong: batch 0, head 0, query " in line
    assert "one key too many" in line


def test_what_cannot_be_had_raises() -> None:
    with pytest.raises(BackendUnavailable, match="wanted a function of"):
        invoke("faulty_backends:NO_BACKEND")
    with pytest.raises(UnknownBackend, match="MODULE:ATTRIBUTE"):
        invoke("nope")
    with pytest.raises(BackendUnavailable, match="no_such_module"):
        invoke("no_such_module:BACKEND")
    with pytest.raises(BackendUnavailable, match="CUDA"):
        invoke("sdpa-cudnn")

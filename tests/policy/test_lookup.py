"""What ``backend="auto"`` takes: this machine's policy where it holds, else the built-in rule, and it says which."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_records import problem

import rls_bench
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Support, no
from rls_bench.errors import BackendUnsupported, PolicyError
from rls_bench.machines import host
from rls_bench.policy import file as policy_file
from rls_bench.policy import lookup as policy
from rls_bench.policy.file import Policy, Rule


@pytest.fixture(autouse=True)
def nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts with no policy anywhere, and leaves none behind."""
    monkeypatch.delenv(policy.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    policy.forget()
    yield
    policy.forget()


def rule(backends: tuple[str, ...], *lengths: int, **options: object) -> Rule:
    problems = [problem(length, **options) for length in lengths]
    points = tuple(policy_file.point(measured) for measured in problems)
    one = problems[0]
    return Rule(policy_file.kind(one), one.head_dim, one.value_dim, points, backends, "fastest that agrees")


def write(path: Path, *rules: Rule, **validity: str | None) -> Path:
    here = host.current()
    holds = policy_file.validity(here) | validity
    policy_file.write(path, Policy("2026-01-01", here.title, holds, ("abc",), "latency", "rls-bench run && …", rules))
    return path


def test_without_a_policy_the_built_in_rule_serves_and_says_so() -> None:
    choice = policy.explain(problem())
    assert choice.backend == policy.pick(problem())
    assert choice.policy is None
    assert choice.why.startswith("no policy was found")
    # Only eager does all of it.
    assert policy.pick(problem(return_stats=True, requires_grad=True, eps=1e-3)) in ("cpu", "eager")


def test_the_order_of_search_is_argument_variable_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = write(tmp_path / "argument.json", rule(("eager",), 1024))
    monkeypatch.setenv(policy.VARIABLE, str(write(tmp_path / "variable.json", rule(("sdpa-math",), 1024))))
    write(policy.default_path(), rule(("keyfold",), 1024))
    assert policy.pick(problem(), argument) == "eager"
    assert policy.pick(problem()) == "sdpa-math"
    monkeypatch.delenv(policy.VARIABLE)
    policy.forget()
    assert policy.pick(problem()) == "keyfold"
    assert policy.explain(problem()) == policy.Choice("keyfold", "fastest that agrees", policy.default_path())


def test_regimes_without_figures_meet_midway_and_end_at_the_measured_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", rule(("eager",), 256, 1024), rule(("keyfold",), 4096, 8192))
    picked = {length: policy.pick(problem(length), path) for length in (256, 1024, 2040, 2060, 8192)}
    assert list(picked.values()) == ["eager", "eager", "eager", "keyfold", "keyfold"]
    outside = policy.explain(problem(8193), path)
    assert outside.policy is None
    assert "no measurement of this kind about these sizes" in outside.why
    assert policy.explain(problem(255), path).policy is None
    assert policy.explain(problem(600), path).why.startswith("not measured, between key lengths 256 and 1024")


def test_between_measured_lengths_the_costs_decide_and_the_reason_says_so(tmp_path: Path) -> None:
    """sdpa-math costs 1 ms at 256 and 100 ms at 1024, keyfold 2 and 3: they meet at 317, far from midway."""
    both = ("sdpa-math", "keyfold")
    short = replace(rule(both, 256), costs={"sdpa-math": (1e6,), "keyfold": (2e6,), "eager": (9e6,)})
    long = replace(rule(both[::-1], 1024), costs={"sdpa-math": (1e8,), "keyfold": (3e6,)})
    path = write(tmp_path / "p.json", short, long)
    assert [policy.pick(problem(length), path) for length in (256, 310, 325, 1024)] == [*both[:1] * 2, *both[1:] * 2]
    why = policy.explain(problem(500), path).why
    assert why.startswith("not measured, between key lengths 256 and 1024: keyfold has the least cost")


@pytest.mark.parametrize(("batch", "length"), [(64, 8192), (1, 128), (64, 129), (8, 8192)])
def test_what_lies_in_the_box_but_not_between_the_measured_is_not_measured(
    tmp_path: Path, batch: int, length: int
) -> None:
    path = write(tmp_path / "p.json", rule(("sdpa-math",), 8192, batch=1), rule(("keyfold",), 128, batch=64))
    found = policy.explain(problem(length, batch=batch), path)
    assert found.policy is None
    assert "no measurement of this kind about these sizes" in found.why
    # On the line between the two, and at its ends, they speak.
    assert policy.explain(problem(1024, batch=8), path).policy == path
    assert policy.explain(problem(8192, batch=1), path).why == "fastest that agrees"


def test_a_chunk_of_queries_is_no_square(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", rule(("eager",), 512, 4096))
    assert policy.explain(problem(1024), path).policy == path
    assert policy.explain(problem(1024, query_length=512), path).policy is None


def test_the_nearest_head_dim_inside_the_bounds_serves(tmp_path: Path) -> None:
    small, large = (
        rule(("eager",), 1024, head_dim=64, value_dim=64),
        rule(("keyfold",), 1024, head_dim=128, value_dim=128),
    )
    path = write(tmp_path / "p.json", small, large)
    assert policy.pick(problem(head_dim=72, value_dim=72), path) == "eager"
    assert policy.pick(problem(head_dim=112, value_dim=112), path) == "keyfold"
    for outside in (problem(head_dim=256, value_dim=256), problem(query_heads=16, kv_heads=16)):
        assert "no measurement of this kind about these sizes" in policy.explain(outside, path).why


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": "bfloat16"},
        {"is_causal": True},
        {"eps": 1e-3},
        {"has_key_lengths": True},
        {"strength_layout": "bhq"},
        {"query_length": 1},
    ],
    ids=str,
)
def test_another_kind_of_problem_takes_the_built_in_rule(tmp_path: Path, other: dict[str, object]) -> None:
    path = write(tmp_path / "p.json", rule(("flex",), 1024))
    assert policy.explain(problem(**other), path).policy is None


def test_a_choice_that_refuses_gives_way_to_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", rule(("nobody", "sdpa-cpu", "eager"), 1024))
    assert policy.pick(problem(), path) == "sdpa-cpu"
    refused = replace(problem(), value_dim=32)
    path = write(tmp_path / "q.json", rule(("sdpa-cpu", "eager"), 1024, value_dim=32))
    choice = policy.explain(refused, path)
    assert choice.backend == "eager"
    assert choice.why.startswith("sdpa-cpu cannot do it here, eager is next")


def test_an_abstaining_regime_takes_the_built_in_rule(tmp_path: Path) -> None:
    abstains = replace(rule((), 1024), why="too few launches")
    choice = policy.explain(problem(), write(tmp_path / "p.json", abstains))
    assert choice.policy is None
    assert "too few launches" in choice.why


@pytest.mark.parametrize(
    ("field", "shown"), [("torch", "torch 1.0"), ("driver", "driver 1.0"), ("fingerprint", "another machine")]
)
def test_a_policy_for_something_else_warns_once_and_is_not_used(tmp_path: Path, field: str, shown: str) -> None:
    path = write(tmp_path / "p.json", rule(("eager",), 1024), **{field: "1.0"})
    with pytest.warns(policy.PolicyWarning, match=rf"was made for {shown}.*Renew it: rls-bench run") as caught:
        first = policy.pick(problem(), path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.pick(problem(), path) == first == policy.pick(problem())
    assert shown in policy.explain(problem(), path).why


def test_a_named_policy_must_be_readable_and_a_stray_one_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.pick(problem(), tmp_path / "missing.json")
    bad = tmp_path / "bad.json"
    bad.write_text('{"schema": 9}')
    monkeypatch.setenv(policy.VARIABLE, str(bad))
    with pytest.raises(PolicyError, match="schema 9; this version reads 1"):
        policy.pick(problem())
    monkeypatch.delenv(policy.VARIABLE)
    policy.forget()
    policy.default_path().parent.mkdir(parents=True)
    policy.default_path().write_text("garbage")
    with pytest.warns(policy.PolicyWarning, match="built-in rule"):
        assert policy.explain(problem()).policy is None


def test_what_nobody_can_do_is_refused_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "BUILT_IN", {"cpu": ("sdpa-cpu",)})
    with pytest.raises(BackendUnsupported, match=r"no built-in backend does .* \(sdpa-cpu: .*eps must be 0\)"):
        policy.pick(problem(eps=1e-3))


def test_auto_runs_what_the_policy_says_traced_or_not(tmp_path: Path) -> None:
    torch._dynamo.reset()
    path = write(
        tmp_path / "p.json",
        rule(("sdpa-math",), 32, query_heads=4, kv_heads=4, head_dim=16, value_dim=16, bias_layout="k"),
    )
    query, bias = torch.randn(1, 4, 32, 16), torch.randn(32)
    assert rls_bench.explain(query, query, query, bias, policy=path).backend == "sdpa-math"

    def steer(query: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return rls_bench.steered_attention(query, query, query, bias, policy=path)  # type: ignore[no-any-return]

    wanted = rls_bench.steered_attention(query, query, query, bias, backend="sdpa-math")
    assert torch.equal(steer(query, bias), wanted)
    traced = torch.compile(steer, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(query, bias), wanted)


def test_a_trace_takes_the_next_that_can_be_traced(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", rule(("flex", "sdpa-math"), 1024))
    assert policy.pick(problem(), path, traced=True) == "sdpa-math"


def test_a_file_survives_writing(tmp_path: Path) -> None:
    path = write(tmp_path / "sub" / "p.json", rule(("eager",), 1024, 2048))
    assert policy_file.read(path).rules == (rule(("eager",), 1024, 2048),)
    assert [entry.name for entry in path.parent.iterdir()] == ["p.json"]


def malformed(text: bytes, tmp_path: Path) -> Path:
    path = write(tmp_path / "p.json", rule(("eager",), 1024))
    path.write_bytes(text if text.startswith(b"[") else path.read_bytes().replace(*text.split(b" -> ")))
    return path


@pytest.mark.parametrize(
    "text",
    [
        # What is replaced by what in a policy that holds.
        b'"eager" -> "evil:BACKEND"',
        b"latency -> \xff\xfe",
        b'"batch": 1 -> "batch": 0',
        b'"batch": 1 -> "batch": 1e400',
        b'"batch": 1 -> "batch": 99999999999999999999999999',
        b'"head_dim": 64 -> "head_dim": -64',
        b'"driver" -> "drivel"',
        b'"prefill" -> "refill"',
        b'"schema": 1 -> "schema": 2',
        b"[" * 200_000,
        b"[]",
    ],
)
def test_any_malformed_policy_is_a_policy_error_and_imports_nothing(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy .*p\.json"):
        policy.pick(problem(), malformed(text, tmp_path))


def test_a_policy_without_a_measurement_in_a_rule_is_malformed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", replace(rule(("eager",), 1024), measured=()))
    with pytest.raises(PolicyError, match="measured"):
        policy.pick(problem(), path)


def test_no_policy_that_names_a_module_is_written(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="give it an entry point"):
        write(tmp_path / "p.json", rule(("mine:BACKEND",), 1024))
    assert not (tmp_path / "p.json").exists()


def test_what_is_no_file_is_no_policy_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(PolicyError, match="wanted a regular file"):
            policy.pick(problem(), path)
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.pick(problem(), tmp_path)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_policy_that_others_may_write_is_not_trusted(place: str, tmp_path: Path) -> None:
    path = write(tmp_path / "open" / "p.json", rule(("eager",), 1024))
    (path if place == "file" else path.parent).chmod(0o777)
    with pytest.raises(PolicyError, match="others may write"):
        policy.pick(problem(), path)


def test_one_that_merely_lies_there_only_warns(tmp_path: Path) -> None:
    write(policy.default_path(), rule(("eager",), 1024)).chmod(0o666)
    with pytest.warns(policy.PolicyWarning, match="others may write"):
        assert policy.explain(problem()).policy != "eager"


class Broken(Backend):
    name = "cpu"
    summary = "has a compiler that fails"

    def proven(self) -> Support:
        return no("error: no space left", mendable=True)


def test_auto_does_without_what_is_not_proven_and_tells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.LOADED, "cpu", Broken())
    monkeypatch.setattr(policy, "_TOLD", set())
    with pytest.warns(policy.PolicyWarning, match="auto does without backend cpu: error: no space left"):
        assert policy.pick(problem()) == "sdpa-cpu"
    policy.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.pick(problem()) == "sdpa-cpu"


def test_auto_says_nothing_of_what_nobody_could_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "proven", lambda self: no("this CPU lacks avx2"))
    monkeypatch.setitem(registry.LOADED, "cpu", Broken())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.pick(problem()) == "sdpa-cpu"


def test_a_user_without_a_home_has_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(policy, "user_config_path", homeless)
    policy.forget()
    assert policy.explain(problem()).why.startswith("no policy was found")

"""What ``backend="auto"`` takes: this machine's policy where it holds, else the built-in rule, and it says which."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_records import problem

import rls_bench
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


def test_regimes_meet_between_their_lengths_and_end_at_the_measured_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", rule(("eager",), 256, 1024), rule(("keyfold",), 4096, 8192))
    picked = {length: policy.pick(problem(length), path) for length in (256, 1024, 2000, 2048, 2049, 8192)}
    assert list(picked.values()) == ["eager", "eager", "eager", "eager", "keyfold", "keyfold"]
    outside = policy.explain(problem(8193), path)
    assert outside.policy is None
    assert "measured key lengths 256 to 8192" in outside.why
    assert policy.explain(problem(255), path).policy is None


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

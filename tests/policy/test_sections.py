"""One policy file for several kinds of machines: each takes its own section."""

from __future__ import annotations

from pathlib import Path

import drawn_records
import pytest

from rls_bench.errors import PolicyError
from rls_bench.machines import host
from rls_bench.policy import file as policy_file
from rls_bench.policy import lookup
from rls_bench.policy.file import Policy, Rule
from rls_bench.problems.problem import Problem

PROBLEM = Problem(1, 2, 2, 64, 64, 16, 16)


def section(holds: dict[str, str | None], title: str, backend: str) -> Policy:
    point = policy_file.point(PROBLEM)
    rule = Rule(policy_file.kind(PROBLEM), 16, 16, (point,), (backend,), "fastest", costs={backend: (1.0,)})
    return Policy("2026-01-01", title, holds, ("abc",), "latency", "rls-bench run && …", (rule,))


HERE = policy_file.validity(host.current())
OTHER = policy_file.validity(drawn_records.GPU)


def test_each_machine_takes_its_own_section(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    sections = section(OTHER, "a GPU", "keyfold"), section(HERE, "this one", "sdpa-math")
    policy_file.write(path, *sections)
    assert policy_file.read_sections(path) == sections
    assert lookup.pick(PROBLEM, path) == "sdpa-math"
    with pytest.raises(PolicyError, match="wanted one machine; it speaks of 2: a GPU; this one"):
        policy_file.read(path)


def test_a_machine_without_a_section_is_told_of_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    older = {**HERE, "torch": "1.0"}
    policy_file.write(path, section(OTHER, "a GPU", "keyfold"), section(older, "this one", "sdpa-math"))
    with pytest.warns(lookup.PolicyWarning, match=r"was made for torch 1\.0 \(this one\)"):
        lookup.pick(PROBLEM, path)


def test_one_machine_is_written_as_it_always_was(tmp_path: Path) -> None:
    policy_file.write(tmp_path / "policy.json", section(HERE, "this one", "eager"))
    assert b'"schema": 1' in (tmp_path / "policy.json").read_bytes()
    assert policy_file.read(tmp_path / "policy.json") == section(HERE, "this one", "eager")


def test_two_sections_of_one_machine_and_a_module_in_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    with pytest.raises(PolicyError, match="two speak of the same"):
        policy_file.write(path, section(HERE, "this one", "eager"), section(HERE, "this one", "cpu"))
    with pytest.raises(PolicyError, match="a module to import"):
        policy_file.write(path, section(HERE, "this one", "eager"), section(OTHER, "a GPU", "evil:BACKEND"))
    policy_file.write(path, section(HERE, "this one", "eager"), section(OTHER, "a GPU", "cpu"))
    path.write_bytes(path.read_bytes().replace(b'"schema": 2', b'"schema": 3'))
    with pytest.raises(PolicyError, match="schema 3"):
        policy_file.read_sections(path)

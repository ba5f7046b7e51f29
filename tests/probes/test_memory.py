"""Memory of calls whose needs are known: through torch's allocator, past it, and none at all."""

from __future__ import annotations

import mmap

import pytest
import torch

from rls_bench.probes import memory
from rls_bench.problems.problem import Problem

# query, key and value of 512 KiB each; scores of 8 MiB.
PROBLEM = Problem(1, 2, 2, 1024, 1024, 64, 64)
SCORES_BYTES = 2 * 1024 * 1024 * 4


@pytest.fixture
def query() -> torch.Tensor:
    return torch.ones(1, 2, 1024, 64)


def workspace(call: object) -> memory.Measures:
    return memory.PROBE.measure(call, "fake", PROBLEM)  # type: ignore[arg-type]


def test_a_materialised_score_matrix_is_workspace(query: torch.Tensor) -> None:
    measures = workspace(lambda: (query @ query.transpose(-1, -2)) @ query)
    assert measures["allocator_workspace_bytes"] == SCORES_BYTES
    assert measures["workspace_bytes"] == pytest.approx(SCORES_BYTES, rel=0.15)
    assert measures["peak_bytes"] == PROBLEM.input_bytes + PROBLEM.output_bytes + measures["workspace_bytes"]


def test_memory_taken_past_torch_is_seen_in_the_pages(query: torch.Tensor) -> None:
    def call() -> torch.Tensor:
        # Pages of their own; malloc's may be left over from earlier calls.
        with mmap.mmap(-1, 16 << 20) as scratch:
            for start in range(0, len(scratch), mmap.PAGESIZE):
                scratch[start] = 1
        return query.clone()

    measures = workspace(call)
    assert measures["allocator_workspace_bytes"] == 0
    assert measures["workspace_bytes"] == pytest.approx(16 << 20, rel=0.15)


def test_an_output_of_its_own_is_no_workspace_whether_new_or_reused(query: torch.Tensor) -> None:
    output = torch.empty_like(query)
    assert workspace(lambda: query.clone())["workspace_bytes"] == 0
    assert workspace(lambda: output.copy_(query))["workspace_bytes"] == 0
    assert workspace(lambda: (query.clone(), query.sum(-1)))["workspace_bytes"] == 0


def test_a_kernel_that_hides_its_pages_leaves_the_allocator_view(
    query: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(field: str) -> int:
        raise OSError("hidden")

    monkeypatch.setattr(memory, "_status_bytes", hidden)
    measures = workspace(lambda: query.clone())
    assert measures["resident_workspace_bytes"] is None
    assert measures["workspace_bytes"] == 0

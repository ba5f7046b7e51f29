"""The autotuner with a fake timer: it keeps the fastest, measures once, and survives refusals and spoilt files."""

from pathlib import Path

import pytest
import triton
from rls_kernels.triton import tuning
from rls_kernels.triton.configurations import Configuration

FIRST = Configuration(128, 64, 8, 2)
FAST = Configuration(64, 64, 4, 3)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning._load.cache_clear()
    return tmp_path


class Clock:
    """Times a launch by the configuration that it ran last."""

    def __init__(self, refuses: tuple[Configuration, ...] = (), refusal: Exception | None = None) -> None:
        self.ran: list[Configuration] = []
        self.refuses = refuses
        self.refusal = refusal or triton.runtime.errors.OutOfResources(300_000, 100_000, "shared memory")

    def run(self, configuration: Configuration) -> None:
        if configuration in self.refuses:
            raise self.refusal
        self.ran.append(configuration)

    def time(self, launch: object) -> float:
        launch()  # type: ignore[operator]
        return 1.0 if self.ran[-1] == FAST else 2.0


def test_the_fastest_is_kept_and_measured_once() -> None:
    clock = Clock()
    assert tuning.tune("gpu", "problem", FIRST, clock.run, clock.time) == FAST
    assert len(clock.ran) == len(tuning.candidates(FIRST))
    tuning._load.cache_clear()
    again = Clock()
    assert tuning.tune("gpu", "problem", FIRST, again.run, again.time) == FAST
    assert again.ran == []


def test_another_device_or_problem_is_another_choice() -> None:
    clock = Clock()
    tuning.tune("gpu", "problem", FIRST, clock.run, clock.time)
    assert tuning.kept("other", "problem") is None
    assert tuning.kept("gpu", "other") is None


@pytest.mark.parametrize(
    "refusal",
    [
        triton.runtime.errors.OutOfResources(300_000, 100_000, "shared memory"),
        triton.runtime.errors.PTXASError("ptxas died with signal 11"),
        RuntimeError("PassManager::run failed"),
    ],
)
def test_a_refused_candidate_is_passed_over(refusal: Exception) -> None:
    clock = Clock(refuses=(FAST,), refusal=refusal)
    assert tuning.tune("gpu", "problem", FIRST, clock.run, clock.time) == FIRST


def test_a_fault_of_the_device_ends_tuning() -> None:
    clock = Clock(refuses=(FAST,), refusal=RuntimeError("Triton Error [CUDA]: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        tuning.tune("gpu", "problem", FIRST, clock.run, clock.time)


def test_float32_candidates_are_tiles_that_fit() -> None:
    first = Configuration(64, 32, 4, 2, masked_n=32, slice_d=16)
    found = tuning.candidates(first)
    assert len(found) == 5
    assert all(one.slice_d == 16 and one.block_m * one.block_n <= 64 * 32 for one in found)


def test_every_candidate_refused_raises_the_refusal() -> None:
    clock = Clock(refuses=tuple(tuning.candidates(FIRST)))
    with pytest.raises(triton.runtime.errors.OutOfResources):
        tuning.tune("gpu", "problem", FIRST, clock.run, clock.time)


def test_a_spoilt_file_counts_as_none(cache_folder: Path) -> None:
    path = cache_folder / "rls_bench" / "triton-configurations.json"
    path.parent.mkdir()
    path.write_text("{")
    assert tuning.kept("gpu", "problem") is None
    clock = Clock()
    assert tuning.tune("gpu", "problem", FIRST, clock.run, clock.time) == FAST

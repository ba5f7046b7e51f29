"""Reports in Nsight Compute's own format, read without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from probes import ncu_rep_file

from rls_bench.errors import MissingPackage, ProfileError
from rls_bench.probes import ncu, ncu_rep
from rls_bench.probes.ncu_metrics import measures

STEERED = {
    "gpu__time_duration.sum": 1250.0,
    "lts__t_sector_hit_rate.pct": 100.03,
    "dram__bytes.sum": 5e6,
    "device__attribute_compute_capability_major": 9.0,
    "device__attribute_compute_capability_minor": 0.0,
}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "call.ncu-rep"
    ncu_rep_file.write(path, [("steered", STEERED), ("fold_saliency", {"gpu__time_duration.sum": 250.0})])
    return path


def test_launches_and_their_metrics(report: Path) -> None:
    steered, fold = ncu.read(report)
    assert (steered.name, steered.compute_capability, fold.name) == ("steered", "9.0", "fold_saliency")
    assert measures([steered])["l2_hit_rate_percent"] == 100
    assert measures([steered, fold])["duration_ns"] == 1500
    assert measures([steered, fold])["dram_bytes"] is None


@pytest.mark.parametrize("kept", [0, 3, 40, 200, -1])
def test_a_file_cut_short_is_refused(report: Path, kept: int) -> None:
    report.write_bytes(report.read_bytes()[:kept])
    with pytest.raises(ProfileError, match=r"call\.ncu-rep: "):
        ncu.read(report)


def test_without_the_package_the_message_installs_it(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncu_report", None)
    with pytest.raises(MissingPackage, match=r"pip install 'rls-bench\[profile\]'"):
        ncu_rep.read(report)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.csv: cannot be read \(No such file"):
        ncu.read(tmp_path / "nowhere.csv")

"""What a call's launches come to, and what each GPU generation is asked for."""

from __future__ import annotations

import pytest

from rls_bench.probes.ncu_metrics import Kernel, Metric, measures, wanted

DURATION = "gpu__time_duration.sum"
HIT_RATE = "lts__t_sector_hit_rate.pct"


def kernel(**values: tuple[float, str]) -> Kernel:
    names = {
        "duration": DURATION,
        "hit_rate": HIT_RATE,
        "hits": "lts__t_sectors_lookup_hit.sum",
        "misses": "lts__t_sectors_lookup_miss.sum",
        "dram_read": "dram__bytes_read.sum",
        "dram_op_read": "dram__bytes_op_read.sum",
        "dram_write": "dram__bytes_write.sum",
        "l2_read": "lts__t_sectors_op_read.sum",
        "tensor": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    }
    return Kernel("k", "9.0", {names[name]: Metric(*value) for name, value in values.items()})


def test_totals_add_up_over_launches_and_sectors_are_bytes() -> None:
    found = measures(
        [kernel(duration=(100, "ns"), l2_read=(10, "sector")), kernel(duration=(50, "ns"), l2_read=(1, ""))]
    )
    assert (found["launches"], found["duration_ns"], found["l2_read_bytes"]) == (2, 150, 11 * 32)


def test_rates_are_weighed_by_what_they_are_rates_of() -> None:
    first = kernel(duration=(100, "ns"), hit_rate=(90, "%"), hits=(9, "sector"), misses=(1, "sector"), tensor=(40, "%"))
    second = kernel(duration=(300, "ns"), hit_rate=(0, "%"), hits=(0, "sector"), misses=(30, "sector"), tensor=(0, "%"))
    found = measures([first, second])
    assert found["l2_hit_rate_percent"] == pytest.approx(100 * 9 / 40)
    assert found["tensor_pipe_percent"] == pytest.approx(10)


def test_a_mean_without_its_weights_is_missing() -> None:
    found = measures([kernel(hit_rate=(90, "%")), kernel(hit_rate=(80, "%"))])
    assert found["l2_hit_rate_percent"] is None


def test_what_one_launch_lacks_is_missing_for_the_call() -> None:
    found = measures([kernel(duration=(100, "ns"), dram_read=(5, "byte")), kernel(duration=(100, "ns"))])
    assert found["duration_ns"] == 200
    assert found["dram_read_bytes"] is None


def test_missing_is_none_and_zero_is_zero() -> None:
    found = measures([kernel(tensor=(0, "%"))])
    assert found["tensor_pipe_percent"] == 0
    assert found["occupancy_percent"] is None
    assert measures([])["duration_ns"] is None


@pytest.mark.parametrize(("rate", "seen"), [(100.03, 100), (100, 100), (54.2, 54.2), (140, None), (-1, None)])
def test_a_rate_a_little_over_a_hundred_is_a_hundred(rate: float, seen: float | None) -> None:
    assert measures([kernel(hit_rate=(rate, "%"))])["l2_hit_rate_percent"] == seen


def test_a_metric_in_a_unit_that_it_cannot_have_is_missing() -> None:
    assert measures([kernel(duration=(100, "cycle"))])["duration_ns"] is None


def test_dram_bytes_are_read_and_write_where_the_sum_is_missing() -> None:
    assert measures([kernel(dram_read=(5, "byte"), dram_write=(0, "byte"))])["dram_bytes"] == 5
    assert measures([kernel(dram_read=(5, "byte"))])["dram_bytes"] is None
    assert measures([kernel(dram_op_read=(7, "byte"))])["dram_read_bytes"] == 7


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0)])
def test_dram_metrics_by_their_old_names(capability: tuple[int, int]) -> None:
    assert "dram__bytes_read.sum" in wanted(capability)
    assert "dram__bytes_op_read.sum" not in wanted(capability)


def test_dram_metrics_were_renamed_on_geforce_50xx() -> None:
    assert {"dram__bytes_op_read.sum", "dram__bytes_op_write.sum"} < set(wanted((12, 0)))
    assert "dram__bytes_read.sum" not in wanted((12, 0))


def test_what_the_default_set_lacks_is_asked_for() -> None:
    assert {HIT_RATE, "dram__bytes.sum"} < set(wanted((9, 0)))
    assert len(wanted((9, 0))) == len(set(wanted((9, 0))))

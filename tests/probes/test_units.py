"""Figures in a person's units."""

from __future__ import annotations

import pytest

from rls_bench.probes.units import written


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("duration_ns", 1250, "1.25 µs"),
        ("duration_ns", 999.7, "1 µs"),
        ("call_ns", 53_975_877, "54 ms"),
        ("dram_bytes", 0, "0 B"),
        ("dram_bytes", 33_554_432, "32 MiB"),
        ("peak_bytes", 157_440, "154 KiB"),
        ("l2_hit_rate_percent", 61.53, "61.5 %"),
        ("power_watts", 350.4, "350 W"),
        ("joules_per_call", 0.00123, "0.00123 J"),
        ("launches", 12_345, "12,345"),
        ("bound_by", "compute", "compute"),
        ("dram_bytes", None, "missing"),
    ],
)
def test_a_figure_has_the_unit_that_its_name_says(name: str, value: float | str | None, shown: str) -> None:
    assert written(name, value) == shown

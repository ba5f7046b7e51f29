"""Numbers in the manner of a locale that a file doesn't name."""

from __future__ import annotations

import pytest

from rls_bench.probes.numbers import Undecided, Written, number, point_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("215,744", 215744),
        ("41,943,040", 41943040),
        ("12,34,567.5", 1234567.5),
        ("41 943 040", 41943040),
        ("41\u202f943\u202f040.5", 41943040.5),
        ("41'943'040.5", 41943040.5),
        ("63.51", 63.51),
        ("1.5e+06", 1.5e6),
        ("-0.125", -0.125),
        ("63,51", None),
        ("41.943.040", None),
        ("1,234'567", None),
        ("1e999", None),
        ("nan", None),
        ("1_000", None),
    ],
)
def test_with_a_decimal_point(text: str, value: float | None) -> None:
    assert number(text, ".") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("215.744", 215744), ("41\u00a0943\u00a0040,5", 41943040.5), ("63,51", 63.51), ("0,125", 0.125), ("63.51", None)],
)
def test_with_a_decimal_comma(text: str, value: float | None) -> None:
    assert number(text, ",") == value


@pytest.mark.parametrize(
    ("numbers", "point"),
    [
        ([], "."),
        ([Written("7"), Written("n/a"), Written("PolicySpread")], "."),
        ([Written("215.744"), Written("63,51")], ","),
        ([Written("215,744"), Written("63.51")], "."),
        ([Written("1.310.720"), Written("215.744")], ","),
        # What is counted is whole, so that the sign within it sets thousands apart.
        ([Written("215.744", "gpu__time_duration.sum", "ns")], ","),
        ([Written("215,744", "gpu__time_duration.sum", "ns")], "."),
        ([Written("1,250", "", "nsecond")], "."),
        # No share is above 100 %.
        ([Written("97.199", "x__throughput.pct", "%")], "."),
        ([Written("97,199", "x__throughput.pct", "%")], ","),
        # A number below 1 has no thousands.
        ([Written("0,125")], ","),
    ],
)
def test_the_whole_file_decides(numbers: list[Written], point: str) -> None:
    assert point_of(numbers) == point


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ([Written("1.410", "sm__cycles.avg.per_second", "Mhz")], "'1.410' can be read with"),
        ([Written("1.500", "dram__bytes.sum", "Mbyte")], "'1.500'"),
        # A mean of bytes need not be whole.
        ([Written("1.500", "dram__bytes.avg", "byte")], "'1.500'"),
        ([Written("63,51"), Written("97.20")], "'97.20' has a decimal point and '63,51' a decimal comma"),
    ],
)
def test_what_nothing_decides_is_refused_by_name(numbers: list[Written], named: str) -> None:
    with pytest.raises(Undecided, match=named):
        point_of(numbers)

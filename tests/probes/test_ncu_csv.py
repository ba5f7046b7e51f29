"""Both CSV pages of Nsight Compute, with every trap that real files hold."""

from __future__ import annotations

import pytest

from rls_bench.errors import ProfileError
from rls_bench.probes import ncu_csv
from rls_bench.probes.ncu_metrics import Kernel, Metric, measures

LAUNCH = '"{id}","77","app","127.0.0.1","attend<64>(float *, int)","1","7","(128, 1, 1)","(8, 4, 1)","0","9.0"'
COLUMNS = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream",'
    '"Block Size","Grid Size","Device","CC"'
)
DETAILS = (
    COLUMNS + ',"Section Name","Metric Name","Metric Unit","Metric Value","Rule Name","Rule Type","Rule Description"\n'
)


def details(*rows: str, launch: int = 0) -> str:
    return "".join(f"{LAUNCH.format(id=launch)},{row}\n" for row in rows)


def the_kernel(text: str) -> Kernel:
    (kernel,) = ncu_csv.read(text)
    return kernel


def test_a_plain_details_page() -> None:
    kernel = the_kernel(DETAILS + details('"Section","gpu__time_duration.sum","ns","1250","","",""'))
    assert kernel.name == "attend<64>(float *, int)"
    assert kernel.compute_capability == "9.0"
    assert kernel.metrics == {"gpu__time_duration.sum": Metric(1250, "ns")}


def test_words_around_the_table_are_skipped() -> None:
    noise = '==PROF== Connected to process 77 (/bin/app)\ndevice: a GPU, "quoted"\nID, but no table\n\n'
    table = DETAILS + details('"Section","lts__t_sector_hit_rate.pct","%","61.5","","",""')
    kernel = the_kernel("\ufeff" + noise + table + "==PROF== Disconnected from process 77\nbye\n")
    assert kernel.metrics == {"lts__t_sector_hit_rate.pct": Metric(61.5, "%")}


def test_a_byte_order_mark_right_before_the_header() -> None:
    assert the_kernel("\ufeff" + DETAILS + details('"S","dram__bytes.sum","byte","5","","",""')).metrics


def test_rows_cut_short_and_rows_of_rules() -> None:
    kernel = the_kernel(
        DETAILS
        + details(
            '"GPU Speed Of Light Throughput","Duration","ns","406240"',
            '"SpeedOfLight","","","","SOLBottleneck","OPT","Two lines\nof ""advice"", with commas"',
            '"Occupancy","Achieved Occupancy","%","15.53"',
        )
    )
    assert kernel.metrics == {
        "gpu__time_duration.sum": Metric(406240, "ns"),
        "sm__warps_active.avg.pct_of_peak_sustained_active": Metric(15.53, "%"),
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("53,261,312", 53261312),
        ("1,234.5", 1234.5),
        ("1.5e+06", 1.5e6),
        (" 7 ", 7),
        ("0", 0),
        ("n/a", None),
        ("(!) n/a", None),
        ("", None),
        ("nan", None),
        ("1e999", None),
        ("inf", None),
        ("PolicySpread", None),
        ("12.34.5", None),
    ],
)
def test_numbers_as_ncu_writes_them(written: str, value: float | None) -> None:
    table = DETAILS + details('"S","sm__anchor.sum","","1"', f'"S","dram__bytes.sum","byte","{written}"')
    metric = the_kernel(table).metrics.get("dram__bytes.sum")
    assert (metric.value if metric else None) == value


@pytest.mark.parametrize(
    ("written", "unit", "ns"),
    [
        ("1,250", "nsecond", 1250),
        ("1250", "ns", 1250),
        ("1.25", "usecond", 1250),
        ("1.25", "us", 1250),
        ("2", "msecond", 2e6),
        ("2", "ms", 2e6),
        ("3", "second", 3e9),
        ("3", "s", 3e9),
    ],
)
def test_time_in_the_units_of_old_and_new_versions(written: str, unit: str, ns: float) -> None:
    table = DETAILS + details(f'"S","gpu__time_duration.sum","{unit}","{written}"')
    assert measures(ncu_csv.read(table))["duration_ns"] == ns


@pytest.mark.parametrize(("unit", "scale"), [("byte", 1), ("Kbyte", 1e3), ("Mbyte", 1e6), ("Gbyte", 1e9)])
def test_bytes_with_and_without_a_prefix(unit: str, scale: float) -> None:
    table = DETAILS + details(f'"S","dram__bytes.sum","{unit}","1.5"')
    assert measures(ncu_csv.read(table))["dram_bytes"] == 1.5 * scale


def test_the_raw_page_has_its_units_in_a_row_of_their_own() -> None:
    header = COLUMNS + ',"dram__bytes.sum","gpu__time_duration.sum","lts__t_sector_hit_rate.pct"\n'
    units = '"","","","","","","","","","","","Mbyte","usecond","%"\n'
    rows = LAUNCH.format(id=0) + ',"1.5","2","50"\n' + LAUNCH.format(id=1) + ',"n/a","3"\n'
    first, second = ncu_csv.read("==PROF== words\n" + header + units + rows)
    assert first.metrics == {
        "dram__bytes.sum": Metric(1.5e6, "byte"),
        "gpu__time_duration.sum": Metric(2000, "ns"),
        "lts__t_sector_hit_rate.pct": Metric(50, "%"),
    }
    assert second.metrics == {"gpu__time_duration.sum": Metric(3000, "ns")}


def test_launches_of_the_details_page_stay_apart() -> None:
    rows = [details('"S","gpu__time_duration.sum","ns","5"', launch=launch) for launch in (0, 1)]
    assert [kernel.metrics["gpu__time_duration.sum"].value for kernel in ncu_csv.read(DETAILS + "".join(rows))] == [
        5,
        5,
    ]


PERMISSION = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
APPLICATION = "==ERROR== The application returned an error code (1)."


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            f"==PROF== Connected\n{PERMISSION}\n==WARNING== No kernels were profiled.",
            "NVreg_RestrictProfilingToAdminUsers",
        ),
        ("==ERROR== Cuda driver is not compatible with Nsight Compute.", "nvidia-smi"),
        ("==ERROR== Profiling is not supported on device 0.", "a newer Nsight Compute"),
        ('==ERROR== Failed to profile "k": a driver resource was unavailable.', "dcgmi profiling --pause"),
        ("==ERROR== Failed to find metric dram__bytes_read.sum", "lacks a metric"),
        (f"ValueError: no\n{APPLICATION}\n==WARNING== No kernels were profiled.", "call failed: ValueError: no"),
        ("==PROF== Connected\n==WARNING== No kernels were profiled.", "no kernel ran on the GPU"),
        ("==ERROR== unrecognised option '--print-units=base'", "unrecognised option"),
        ("", "no table of metrics"),
        (DETAILS, "no table of metrics"),
    ],
)
def test_a_run_that_failed_is_told_with_the_mend(output: str, told: str) -> None:
    with pytest.raises(ProfileError, match=r"^ncu: ") as refused:
        ncu_csv.read(output)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


RATE = '"S","lts__t_sector_hit_rate.pct","%"'
DURATION = '"S","gpu__time_duration.sum","ns"'


@pytest.mark.parametrize(("thousands", "rate"), [(",", "63.51"), (".", "63,51"), ("\u202f", "63,51"), ("’", "63.51")])
def test_a_locale_is_told_from_the_whole_page(thousands: str, rate: str) -> None:
    page = DETAILS + details(f'{DURATION},"215{thousands}744"', f'{RATE},"{rate}"')
    figures = measures(ncu_csv.read(page))
    assert (figures["duration_ns"], figures["l2_hit_rate_percent"]) == (215744, 63.51)


def test_the_raw_page_of_another_locale_and_a_version_with_a_point() -> None:
    header = COLUMNS + ',"gpu__time_duration.sum","lts__t_sector_hit_rate.pct"\n'
    units = '"","","","","","","","","","","","ns","%"\n'
    (kernel,) = ncu_csv.read(header + units + LAUNCH.format(id=0) + ',"215.744","63,51"\n')
    assert kernel.compute_capability == "9.0"
    assert measures([kernel])["duration_ns"] == 215744


def test_numbers_of_no_one_locale_are_refused_by_name() -> None:
    page = DETAILS + details(f'{DURATION},"215.744"', f'{RATE},"63,51"', '"S","sm__x.avg","","1.25"')
    with pytest.raises(ProfileError, match=r"'1\.25' has a decimal point and '215\.744' a decimal comma.*LC_ALL=C"):
        ncu_csv.read(page)


def test_a_known_point_needs_no_second_number() -> None:
    page = DETAILS + details('"S","sm__cycles.avg.per_second","Mhz","1.410"')
    with pytest.raises(ProfileError, match="no other number tells"):
        ncu_csv.read(page)
    assert ncu_csv.read(page, point=".")[0].metrics["sm__cycles.avg.per_second"].value == 1.41


def test_names_longer_than_any_reader_of_csv_takes() -> None:
    name = "attend<" + "long, " * 50_000 + "64>"
    page = DETAILS + details(f'{DURATION},"5"').replace("attend<64>(float *, int)", name)
    assert the_kernel(page).name == name


@pytest.mark.parametrize(
    "words", ["step 3 loss=0.5", 'he said "no" and\n', "step 3\n", '"quoted", words\n', "0,1,2,3\n", "==PROF== 50%\n"]
)
def test_words_of_the_program_between_rows(words: str) -> None:
    first, second = details(f'{DURATION},"5"'), details(f'{RATE},"50"')
    kernel = the_kernel(DETAILS + first + words + second + words)
    assert {name: metric.value for name, metric in kernel.metrics.items()} == {
        "gpu__time_duration.sum": 5,
        "lts__t_sector_hit_rate.pct": 50,
    }


def test_a_row_torn_by_the_programs_words_is_left_out_and_no_other() -> None:
    rows = [details(f'{DURATION},"5"', launch=launch) for launch in (0, 1)]
    torn = rows[0][:40] + "\nstep 3\n"
    assert [kernel.metrics["gpu__time_duration.sum"].value for kernel in ncu_csv.read(DETAILS + torn + rows[1])] == [5]


def test_a_header_that_appears_again_begins_a_page_of_its_own() -> None:
    page = DETAILS + details(f'{DURATION},"5"')
    other = page.replace('"Metric Unit","Metric Value"', '"Metric Value","Metric Unit"').replace('"ns","5"', '"7","ns"')
    found = ncu_csv.read(page + "==PROF== again\n\ufeff" + other)
    assert [kernel.metrics["gpu__time_duration.sum"].value for kernel in found] == [5, 7]


def test_cells_without_quotes() -> None:
    page = "ID,Kernel Name,CC,Metric Name,Metric Unit,Metric Value\n"
    kernel = the_kernel(page + "0,attend<64, 2>(float *, int),9.0,gpu__time_duration.sum,ns,215744\n")
    assert (kernel.name, kernel.metrics) == (
        "attend<64, 2>(float *, int)",
        {"gpu__time_duration.sum": Metric(215744, "ns")},
    )
    with pytest.raises(ProfileError, match="7 cells under 6 headings"):
        ncu_csv.read(page + "0,attend(int,9.0,gpu__time_duration.sum,ns,215,744\n")


def test_what_is_not_finite_is_no_figure() -> None:
    page = DETAILS + details('"S","gpu__time_duration.sum","s","1e300"', f'{RATE},"nan"')
    assert {measures(ncu_csv.read(page))[name] for name in ("duration_ns", "l2_hit_rate_percent")} == {None}

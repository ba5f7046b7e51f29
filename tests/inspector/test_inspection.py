from dataclasses import replace

import pytest
from inspector.plain_cases import plain_case

from rls_bench.inspector import compile as compiler
from rls_bench.inspector import inspection as inspections
from rls_bench.inspector import workers as pools
from rls_bench.inspector.cache import Cache
from rls_bench.inspector.compile import Compiled
from rls_bench.inspector.inspection import Case, Inspection, measure
from rls_bench.inspector.sass import Function, parse
from rls_bench.inspector.tax import taxes
from rls_bench.inspector.workers import inspect_all

UNROLLED = """        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   HMMA.16816.F32.BF16 R12, R4, R144, R52 ;
        /*0020*/                   MUFU.EX2 R1, R1 ;
        /*0030*/                   FFMA R1, R1, R2, R3 ;
        /*0040*/                   FADD R1, R1, R2 ;
        /*0050*/               @P0 BRA 0x10 ;
        /*0060*/                   EXIT ;
"""


@pytest.fixture(autouse=True)
def registers(monkeypatch):
    """There is no cubin behind a listing written by hand."""
    usage = inspections.usage
    monkeypatch.setattr(inspections, "usage", lambda cubin: usage(cubin) if cubin else (100, 0))


def counted(case: Case, listing: str, num_warps: int = 1, partition_warps: tuple[int, ...] = ()) -> Inspection:
    return measure(case, Compiled(b"", 1024, 0, num_warps, partition_warps), Function(parse(listing)))


def test_figures_are_a_score_of_the_tile():
    # One HMMA is 16 · 8 · 16 multiply-adds: the whole tile of 16 × 8 scores at 16 a score, four scores a thread.
    case = replace(plain_case("sm_80"), block_m=16, block_n=8, multiply_adds=16)
    hot = counted(case, UNROLLED).hot
    assert (hot.instructions, hot.fp32, hot.mufu, hot.tensor_flops, hot.unroll) == (5 / 4, 2 / 4, 1 / 4, 32, 1)


def test_an_unrolled_loop_is_divided_by_all_of_its_scores():
    case = replace(plain_case("sm_80"), block_m=8, block_n=8, multiply_adds=16)
    hot = counted(case, UNROLLED).hot
    assert (hot.unroll, hot.instructions, hot.tensor_flops) == (2, 5 / 4, 32)


def test_a_loop_with_a_part_of_the_products_is_not_the_hot_one():
    part = UNROLLED.replace("EXIT", "HMMA.1688.F32.BF16 R12, R4, R144, R52 ;\n        /*0070*/  @P0 BRA 0x60 ")
    case = replace(plain_case("sm_80"), block_m=16, block_n=8, multiply_adds=16)
    found = counted(case, part)
    assert [loop.unroll for loop in found.hot_loops] == [1, 0.5]
    assert found.hot_loops[1].instructions < found.hot.instructions


SPECIALISED = """
        /*0000*/               @P0 BRA 0x40 ;
        /*0010*/                   HMMA.16816.F32.BF16 R12, R4, R144, R52 ;
        /*0020*/               @P1 BRA 0x10 ;
        /*0030*/                   EXIT ;
        /*0040*/                   MUFU.EX2 R1, R1 ;
        /*0050*/                   FFMA R1, R1, R2, R3 ;
        /*0060*/               @P1 BRA 0x40 ;
        /*0070*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R4], R5 ;
        /*0080*/              @!P0 BRA 0x70 ;
        /*0090*/                   EXIT ;
"""


def test_partitions_of_a_specialised_kernel_count_together():
    """One warp multiplies, another does the softmax: a score costs the instructions of both loops, without waits."""
    case = replace(plain_case("sm_80"), block_m=16, block_n=8, multiply_adds=16)
    found = counted(case, SPECIALISED, 2, (1, 1))
    assert (found.hot.instructions, found.hot.mufu, found.hot.unroll) == (5 / 4, 1 / 4, 1)


def test_a_specialised_kernel_whose_loops_cannot_be_told_apart_is_not_counted():
    twice = SPECIALISED.replace("FFMA R1, R1, R2, R3", "HMMA.16816.F32.BF16 R12, R4, R144, R52")
    found = counted(plain_case("sm_80"), twice, 2, (1, 1))
    assert found.hot is None


@pytest.fixture(scope="module")
def steered_and_not(tmp_path_factory):
    """Both kernels on one architecture of each tensor path, through two processes and a cache."""
    cache = Cache(tmp_path_factory.mktemp("inspections"))
    cases = [plain_case(arch, steered=steered) for arch in ("sm_80", "sm_90", "sm_100") for steered in (False, True)]
    return cases, cache, inspect_all(cases, workers=2, cache=cache)


def test_cases_come_back_in_their_order(steered_and_not):
    cases, _, found = steered_and_not
    assert [(one.arch, one.variant, one.error) for one in found] == [(case.arch, case.variant, "") for case in cases]


def test_each_architecture_has_its_tensor_path(steered_and_not):
    found = steered_and_not[2]
    assert [one.tensor_path for one in found[::2]] == ["mma.sync", "wgmma", "tcgen05"]
    assert all(one.hot.unroll == 1 and one.fits for one in found)


def test_the_plain_loop_costs_what_is_known_of_it(steered_and_not):
    """10.3, 8.9 and 7.3 instructions a score were counted by hand for such a loop, 4.38 and 3.55 of them FP32."""
    hot = [one.hot for one in steered_and_not[2][::2]]
    assert [loop.instructions for loop in hot] == pytest.approx([10.3, 8.9, 7.3], abs=0.4)
    assert [loop.fp32 for loop in hot] == pytest.approx([4.38, 4.38, 3.55], abs=0.1)


def test_a_bias_multiplied_by_score_is_seen_in_the_tax(steered_and_not):
    """This kernel multiplies after the conversion to the scores' layout, which ptxas repeats for each score."""
    found = taxes(steered_and_not[2])
    assert len(found) == 3
    assert all(tax.fp32 >= 0.5 and tax.instructions > 1.0 for (tax,) in found.values())


def test_the_second_time_nothing_is_compiled(steered_and_not, monkeypatch):
    cases, cache, first = steered_and_not
    monkeypatch.setattr(pools, "_pool", lambda workers: pytest.fail("compiled again"))
    assert inspect_all(cases, cache=cache) == first


@pytest.mark.parametrize(
    "change",
    [{"num_warps": 4}, {"num_stages": 3}, {"constexprs": {"STEERED": True}}, {"options": {"maxnreg": 128}}],
)
def test_the_cache_tells_sources_apart(steered_and_not, change):
    cases, cache, _ = steered_and_not
    assert cache.get(cases[0]) is not None
    assert cache.get(replace(cases[0], source=replace(cases[0].source, **change))) is None


def test_another_compiler_or_a_torn_file_is_compiled_again(steered_and_not, monkeypatch):
    cases, cache, first = steered_and_not
    monkeypatch.setattr(compiler, "toolchain", lambda: "triton 9")
    other = Cache(cache.folder)
    assert other.get(cases[0]) is None
    other.put(cases[0], first[0])
    assert other.get(cases[0]) == first[0]
    other._path(cases[0]).write_text("{")
    assert other.get(cases[0]) is None


def test_variants_with_one_source_are_compiled_once(steered_and_not):
    cases, cache, first = steered_and_not
    twin = replace(cases[1], variant=replace(cases[1].variant, strength_layout="h"))
    found = inspect_all([cases[1], twin], cache=cache)
    assert [one.variant.strength_layout for one in found] == ["scalar", "h"]
    assert found[1].registers == first[1].registers


def test_a_case_that_fails_or_crashes_leaves_the_others_alone(tmp_path):
    good = plain_case("sm_80")
    bad = replace(good, source=replace(good.source, constexprs={**good.source.constexprs, "BLOCK_N": 48}))
    crash = replace(good, source=replace(good.source, function="inspector.crashing:kernel"))
    seen = []
    found = inspect_all([bad, crash, good], workers=2, progress=lambda: seen.append(1))
    assert "Triton cannot compile it" in found[0].error
    assert found[1].error == "sm_80: the compiler crashed"
    assert found[2].registers > 0
    assert len(seen) == 3

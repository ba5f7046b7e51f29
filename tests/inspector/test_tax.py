from dataclasses import replace

from inspector.found import PER_QUERY, STEERED, UNSTEERED, inspection

from rls_bench.inspector.tax import taxes


def test_steering_is_taxed_against_the_unsteered_loop():
    found = taxes(
        [inspection(UNSTEERED, instructions=10.0, fp32=4.0), inspection(PER_QUERY, instructions=11.5, fp32=5.0)]
    )
    assert list(found) == ["sm_80 prefill D64 bf16 λ[bhq]"]
    ((tax,),) = found.values()
    assert (tax.of, tax.instructions, tax.fp32) == ("steering", 1.5, 1.0)


def test_eps_and_stats_are_taxed_against_the_steered_loop():
    steered = inspection(STEERED, instructions=11.0)
    eps = inspection(replace(STEERED, eps=True), instructions=12.0)
    stats = inspection(replace(STEERED, stats=True), instructions=14.0)
    found = taxes([steered, eps, stats])
    assert [(tax.of, tax.instructions) for (tax,) in found.values()] == [("eps", 1.0), ("stats", 3.0)]


def test_architectures_are_not_compared():
    assert taxes([inspection(UNSTEERED), inspection(STEERED, arch="sm_90")]) == {}


def test_another_tile_is_taxed_and_says_so():
    """A kernel that takes smaller tiles because of what was added doesn't escape its bar."""
    ((tax,),) = taxes([inspection(UNSTEERED), inspection(STEERED, block_n=32, instructions=14.0)]).values()
    assert (tax.instructions, tax.same_tile) == (4.0, False)


def test_a_case_that_did_not_compile_has_no_tax():
    assert taxes([inspection(UNSTEERED, error="no", hot_loops=[]), inspection(STEERED)]) == {}

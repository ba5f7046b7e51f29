import pytest

from rls_bench.inspector.occupancy import occupancy


@pytest.mark.parametrize(
    ("arch", "registers", "shared_kib", "num_warps", "columns", "blocks", "limited_by"),
    [
        # Checked by hand against the programming guide's table of limits.
        ("sm_80", 140, 32, 8, 0, 1, "registers"),
        ("sm_80", 32, 0, 4, 0, 16, "warps, registers"),
        ("sm_80", 32, 81, 4, 0, 2, "shared memory"),
        ("sm_86", 24, 0, 1, 0, 16, "blocks"),
        ("sm_90", 168, 48, 4, 0, 3, "registers"),
        ("sm_100", 64, 20, 4, 256, 2, "tensor memory"),
        ("sm_120", 40, 49, 4, 0, 2, "shared memory"),
    ],
)
def test_blocks_an_sm(arch, registers, shared_kib, num_warps, columns, blocks, limited_by):
    held = occupancy(arch, registers, shared_kib * 1024, num_warps, columns)
    assert (held.blocks, held.warps, held.limited_by) == (blocks, blocks * num_warps, limited_by)
    assert held.fits


def test_a_block_too_large_for_an_sm_does_not_fit():
    held = occupancy("sm_86", 128, 100 * 1024, 8)
    assert not held.fits
    assert held.limited_by == "shared memory"

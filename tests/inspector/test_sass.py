"""The listings in sass/ are cuobjdump's of plain_flash (64 × 32 tiles, head_dim 16, four warps), encodings cut off."""

from pathlib import Path

import pytest

from rls_bench.inspector import sass

LISTINGS = Path(__file__).parent / "sass"


def listing(arch: str) -> sass.Function:
    (function,) = sass.parse((LISTINGS / f"{arch}.sass").read_text())
    return function


def written(*lines: str) -> sass.Function:
    """A function of the given instructions, 16 bytes each."""
    code = "".join(f"        /*{16 * index:04x}*/   {line} ;\n" for index, line in enumerate(lines))
    (function,) = sass.parse(f"\t\tFunction : written\n{code}")
    return function


def test_text_without_a_function_is_refused():
    with pytest.raises(ValueError, match="Function : NAME"):
        sass.parse("cuobjdump fatal   : Unknown file")


def test_every_line_of_a_listing_is_one_instruction():
    text = (LISTINGS / "sm_100.sass").read_text()
    assert len(listing("sm_100").instructions) == text.count(";")


@pytest.mark.parametrize(("arch", "path"), [("sm_80", "mma.sync"), ("sm_90", "wgmma"), ("sm_100", "tcgen05")])
def test_the_tensor_path_is_read_off_the_opcodes(arch, path):
    assert listing(arch).path == path


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_the_hot_loop_does_the_multiply_adds_of_one_tile(arch):
    function = listing(arch)
    (loop,) = sass.hot_loops(function)
    assert sass.multiply_adds(function, loop, num_warps=4) == 64 * 32 * (16 + 16)


def test_the_hot_loop_of_a_listing_is_counted():
    (loop,) = sass.hot_loops(listing("sm_80"))
    assert len(loop.instructions) == (loop.end - loop.start) // 16 + 1
    assert loop.mix["tensor"] == loop.opcodes["HMMA"] == 8
    # One exponential a score and one a row: 64 · 32 / 128 scores and two rows a thread.
    assert loop.opcodes["MUFU"] == 16 + 2


def test_a_barrier_wait_out_of_line_makes_no_second_loop():
    """tcgen05's slow paths lie past the end and jump back into the loop; a plain address range would swallow them."""
    function = listing("sm_100")
    (loop,) = sass.hot_loops(function)
    back = [i for i in function.instructions if i.target is not None and loop.start < i.target <= loop.end < i.address]
    assert back
    assert all(instruction.address <= loop.end for instruction in loop.instructions)


def test_an_outer_loop_is_not_the_hot_one():
    function = written(
        "MOV R0, RZ",
        "HMMA.16816.F32 R0, R4, R8, R0",
        "FADD R1, R1, R2",
        "HMMA.16816.F32 R0, R4, R8, R0",
        "@P0 BRA 0x20",
        "@P1 BRA 0x10",
        "EXIT",
    )
    assert [(loop.start, loop.end) for loop in sass.loops(function)] == [(0x10, 0x50), (0x20, 0x40)]
    (hot,) = sass.hot_loops(function)
    assert [instruction.base for instruction in hot.instructions] == ["FADD", "HMMA", "BRA"]


def test_two_loops_side_by_side_are_both_hot():
    function = written(
        "HMMA.16816.F32 R0, R4, R8, R0",
        "@P0 BRA 0x0",
        "FSETP.GT.AND P1, PT, R1, R2, PT",
        "HMMA.16816.F32 R0, R4, R8, R0",
        "@P0 BRA 0x20",
        "EXIT",
    )
    assert [len(loop.instructions) for loop in sass.hot_loops(function)] == [2, 3]


def test_a_kernel_without_tensor_cores_has_its_exponentials_loop():
    function = written(
        "FFMA R0, R1, R2, R0", "MUFU.EX2 R0, R0", "@P0 BRA 0x0", "FADD R0, R0, R1", "@P0 BRA 0x30", "EXIT"
    )
    (hot,) = sass.hot_loops(function)
    assert (hot.start, function.path) == (0x0, "none")
    assert sass.multiply_adds(function, hot, num_warps=4) == 0


def test_code_behind_an_indirect_branch_is_found():
    """Warp-specialised partitions hang from a jump table."""
    function = written("BRX R2 -0x10", "HMMA.16816.F32 R0, R4, R8, R0", "@P0 BRA 0x10", "EXIT")
    assert len(sass.hot_loops(function)) == 1


def test_packed_arithmetic_is_one_instruction_and_two_lanes():
    (loop,) = sass.hot_loops(
        written("FFMA2 R0, R2, R4, R6", "FMUL R0, R0, R1", "MUFU.EX2 R0, R0", "@P0 BRA 0x0", "EXIT")
    )
    assert (loop.mix["fp32"], loop.fp32_lanes) == (2, 3)


@pytest.mark.parametrize(
    ("opcode", "group"),
    [
        ("HMMA.16816.F32.BF16", "tensor"),
        ("UTCHMMA", "tensor"),
        ("MUFU.EX2", "mufu"),
        ("FMNMX3", "fp32"),
        ("F2FP.BF16.PACK_AB", "convert"),
        ("IMAD.MOV.U32", "move"),
        ("IMAD.WIDE", "integer"),
        ("LDSM.16.M88.4", "shared"),
        ("LDGSTS.E.BYPASS.128", "global"),
        ("UTMALDG.4D", "global"),
        ("LDTM.x64", "tensor memory"),
        ("STL.128", "local"),
        ("ULEA", "uniform"),
        ("UTCBAR", "control"),
        ("WARPGROUP.ARRIVE", "control"),
    ],
)
def test_groups(opcode, group):
    assert sass.Instruction(0, "", opcode, "").group == group


def test_a_shape_that_cannot_be_read_is_not_guessed():
    function = written("UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR8], tmem[UR10], idesc[UR11], UPT", "@P0 BRA 0x0", "EXIT")
    (loop,) = sass.hot_loops(function)
    assert sass.multiply_adds(function, loop, num_warps=4) is None

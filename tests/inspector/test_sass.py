"""The listings in sass/ are cuobjdump's of plain_flash (64 × 32 tiles, head_dim 16, four warps), encodings cut off."""

from pathlib import Path

import pytest

from rls_bench.inspector import loops, products, sass

LISTINGS = Path(__file__).parent / "sass"


def listing(arch: str) -> sass.Function:
    return sass.Function(sass.parse((LISTINGS / f"{arch}.sass").read_text()))


def written(*lines: str) -> sass.Function:
    """A function of the given instructions, 16 bytes each."""
    code = "".join(f"        /*{16 * index:04x}*/   {line} ;\n" for index, line in enumerate(lines))
    return sass.Function(sass.parse(code))


def test_spill_bytes_are_those_of_all_spill_stores():
    function = written(
        "STL [R1+0x8], R4", "@P0 STL.64 [R1], R2", "STL.128 [R1+0x10], R8", "STL.U8 [R1], R3", "LDL.64 R2, [R1]"
    )
    assert function.spill_bytes == 4 + 8 + 16 + 1


def test_functions_listed_one_behind_the_other_are_cut_apart():
    """Each starts at 0, with its targets; what is no address stays."""
    together = written(
        "MOV R0, 0x10", "EXIT", "MOV R0, 0x20", "@P0 BRA 0x20", "BRA.U !UP0, 0x30", "RET.REL.NODEC R2 0x20"
    )
    first, second = sass.cut(together.instructions, [2 * 16, 4 * 16])
    assert [one.operands for one in first.instructions] == ["R0, 0x10", ""]
    assert [one.address for one in second.instructions] == [0, 16, 32, 48]
    assert [one.operands for one in second.instructions] == ["R0, 0x20", "0x0", "!UP0, 0x10", "R2 0x0"]


def test_text_without_an_instruction_is_refused():
    with pytest.raises(ValueError, match="wanted a listing"):
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
    (loop,) = loops.hot_loops(function)
    assert products.multiply_adds(function, loop, num_warps=4) == 64 * 32 * (16 + 16)


def test_the_hot_loop_of_a_listing_is_counted():
    (loop,) = loops.hot_loops(listing("sm_80"))
    assert len(loop.instructions) == (loop.end - loop.start) // 16 + 1
    assert loop.mix["tensor"] == loop.opcodes["HMMA"] == 8
    # One exponential a score and one a row: 64 · 32 / 128 scores and two rows a thread.
    assert loop.opcodes["MUFU"] == 16 + 2


def test_a_barrier_wait_out_of_line_makes_no_second_loop():
    """tcgen05's slow paths lie past the end and jump back into the loop; a plain address range would swallow them."""
    function = listing("sm_100")
    (loop,) = loops.hot_loops(function)
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
    assert [(loop.start, loop.end) for loop in loops.loops(function)] == [(0x10, 0x50), (0x20, 0x40)]
    (hot,) = loops.hot_loops(function)
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
    assert [len(loop.instructions) for loop in loops.hot_loops(function)] == [2, 3]


def test_a_kernel_without_tensor_cores_has_its_exponentials_loop():
    function = written(
        "FFMA R0, R1, R2, R0", "MUFU.EX2 R0, R0", "@P0 BRA 0x0", "FADD R0, R0, R1", "@P0 BRA 0x30", "EXIT"
    )
    (hot,) = loops.hot_loops(function)
    assert (hot.start, function.path) == (0x0, "none")
    assert products.multiply_adds(function, hot, num_warps=4) == 0


def test_code_behind_an_indirect_branch_is_found():
    """Warp-specialised partitions hang from a jump table."""
    function = written("BRX R2 -0x10", "HMMA.16816.F32 R0, R4, R8, R0", "@P0 BRA 0x10", "EXIT")
    assert len(loops.hot_loops(function)) == 1


def test_packed_arithmetic_is_one_instruction_and_two_lanes():
    (loop,) = loops.hot_loops(
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
    (loop,) = loops.hot_loops(function)
    assert products.multiply_adds(function, loop, num_warps=4) is None

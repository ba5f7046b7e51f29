"""The kernel's code, read back from real cubins of plain_flash."""

import re
import subprocess

import pytest
from inspector.plain_cases import plain_case

from rls_bench.errors import InspectionError
from rls_bench.inspector import disassemble, sass
from rls_bench.inspector.compile import compile_for, tool


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_kernels_read_together_are_those_that_cuobjdump_prints(arch, tmp_path):
    """Every instruction, with its address and its target, of the first kernel and of one that lies behind it."""
    cubins = [compile_for(case.source, case.arch).cubin for case in (plain_case(arch), plain_case(arch, steered=True))]
    functions = disassemble.functions(arch, [disassemble.code(cubin) for cubin in cubins])
    for cubin, function in zip(cubins, functions, strict=True):
        path = tmp_path / "kernel.cubin"
        path.write_bytes(cubin)
        listing = subprocess.run([tool("cuobjdump"), "-sass", path], capture_output=True, text=True, check=True).stdout
        assert listing.count("Function : plain_flash") == 1
        assert function.instructions == sass.parse(listing)
    assert functions[0] != functions[1]


def test_a_file_that_is_no_cubin_is_refused():
    with pytest.raises(InspectionError, match="wanted a cubin in ELF format; got 9 bytes"):
        disassemble.code(b"not a one")
    with pytest.raises(InspectionError, match="cuobjdump failed"):
        disassemble.usage(b"not a one")


def test_a_cubin_without_a_kernel_is_refused():
    cubin = compile_for(plain_case("sm_80").source, "sm_80").cubin
    with pytest.raises(InspectionError, match=re.escape("a section .text.KERNEL")):
        disassemble.code(cubin.replace(b".text.", b".data."))


def test_an_architecture_that_nvdisasm_does_not_know_is_told():
    with pytest.raises(InspectionError, match=r"nvdisasm failed.*SM30"):
        disassemble.functions("sm_30", [b"\0" * 16])

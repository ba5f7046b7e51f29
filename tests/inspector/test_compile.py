from dataclasses import replace

import pytest
from inspector.plain_cases import plain_case

from rls_bench.errors import InspectionError
from rls_bench.inspector import compile as compiler
from rls_bench.inspector import disassemble

SOURCE = plain_case("sm_80").source


def test_a_kernel_compiles_without_a_gpu():
    compiled = compiler.compile_for(SOURCE, "sm_80")
    assert compiled.num_warps == 8
    # One stage ahead of K and of V: two tiles of 64 × 64 bf16 each.
    assert compiled.shared_bytes == 4 * 64 * 64 * 2
    registers, stack_bytes = disassemble.usage(compiled.cubin)
    assert registers > 32
    assert stack_bytes == 0


def test_partitions_are_read_off_tritons_dialect():
    ttgir = "default { } partition0(%a: i32 loc(#a)) num_warps(4) { }\n partition1(%a: i32, %b: i32) num_warps(2) { }"
    assert compiler._partition_warps(ttgir, 10) == (4, 4, 2)
    assert compiler._partition_warps("module {}", 8) == ()


def test_a_kernel_with_too_few_registers_spills():
    compiled = compiler.compile_for(replace(SOURCE, options={"maxnreg": 64}), "sm_80")
    registers, stack_bytes = disassemble.usage(compiled.cubin)
    (function,) = disassemble.functions("sm_80", [disassemble.code(compiled.cubin)])
    assert registers == 64
    assert function.spill_bytes > 0
    assert stack_bytes > 0


def test_what_triton_refuses_is_told_with_its_reason():
    with pytest.raises(InspectionError, match="for sm_80: Triton cannot compile it"):
        compiler.compile_for(replace(SOURCE, constexprs={**SOURCE.constexprs, "BLOCK_N": 48}), "sm_80")


def test_an_argument_without_a_type_is_named():
    signature = {name: kind for name, kind in SOURCE.signature.items() if name != "scale"}
    with pytest.raises(InspectionError, match="no type or value for scale"):
        compiler.compile_for(replace(SOURCE, signature=signature), "sm_80")


@pytest.mark.parametrize("function", ["no_such_module:kernel", "inspector.plain_flash:no_such_kernel"])
def test_a_kernel_that_is_not_there_is_named(function):
    with pytest.raises(InspectionError, match="cannot be imported"):
        compiler.load(replace(SOURCE, function=function))


def test_a_plain_function_is_no_kernel():
    with pytest.raises(InspectionError, match=r"wanted a triton\.jit function; got function"):
        compiler.load(replace(SOURCE, function="inspector.plain_cases:plain_case"))


@pytest.mark.parametrize("arch", ["90", "sm_", "hopper", "sm_9x"])
def test_an_architectures_name_is_checked(arch):
    with pytest.raises(InspectionError, match="wanted a name like sm_90"):
        compiler.capability(arch)


def test_the_interpreter_is_no_compiler(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    with pytest.raises(InspectionError, match="unset it"):
        compiler.load(SOURCE)


@pytest.mark.parametrize("name", ["cuobjdump", "nvdisasm"])
def test_a_missing_tool_names_its_cure(monkeypatch, name):
    triton = pytest.importorskip("triton")
    found = triton.knobs.NvidiaTool.from_path
    monkeypatch.setattr(triton.knobs.NvidiaTool, "from_path", lambda path: None if path.endswith(name) else found(path))
    with pytest.raises(InspectionError, match=rf"pip install --force-reinstall triton.*TRITON_{name.upper()}_PATH"):
        compiler.toolchain()

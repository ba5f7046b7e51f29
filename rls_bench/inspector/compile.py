"""Compiles one Triton kernel for one architecture, on any machine, with the options of a launch."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rls_bench.errors import InspectionError

_TOOLS = ("cuobjdump", "nvdisasm")


@dataclass(frozen=True)
class Source:
    """One kernel with everything that its compilation depends on.

    ``function`` is ``"module:attribute"`` of a ``triton.jit`` function, a name so that a worker process can find it.
    ``signature`` maps each run-time argument to its Triton type (``"*bf16"``, ``"fp32"``, ``"i32"``), or to a tuple of
    them, in which what is no string is a constant; ``constexprs`` the others to their values; ``aligned`` are the
    arguments that are multiples of 16 (bytes for pointers), all of a tuple.
    """

    function: str
    signature: Mapping[str, str | tuple[Any, ...]]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compiled:
    """What Triton and ptxas made of a kernel: ``cubin`` is an ELF file.

    ``shared_bytes`` is the launch's dynamic shared memory a block, ``tensor_memory_columns`` what a block allocates of
    tensor memory. ``num_warps`` is what a block really runs; of a warp-specialised kernel ``partition_warps`` says how
    many of them do the same, otherwise it is empty.
    """

    cubin: bytes
    shared_bytes: int
    tensor_memory_columns: int
    num_warps: int
    partition_warps: tuple[int, ...] = ()


def load(source: Source) -> Any:
    """The ``triton.jit`` function of ``source``. Raises InspectionError where Triton has no compiler to offer."""
    triton = _triton()
    if triton.knobs.runtime.interpret:
        raise InspectionError(
            "TRITON_INTERPRET is set: Triton interprets kernels and compiles none; unset it and inspect again"
        )
    module, _, attribute = source.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InspectionError(f"{source.function}: cannot be imported: {error}") from error
    # Autotuner and heuristics wrap the function; the source has their choice already.
    while not isinstance(function, triton.runtime.jit.JITFunction) and hasattr(function, "fn"):
        function = function.fn
    if not isinstance(function, triton.runtime.jit.JITFunction):
        raise InspectionError(f"{source.function}: wanted a triton.jit function; got {type(function).__name__}")
    return function


def ast_source(source: Source) -> Any:
    """``source`` as Triton's own ``ASTSource``. Raises InspectionError for an argument without a type or value."""
    function = load(source)
    from triton.compiler import ASTSource

    names = function.arg_names
    missing = [name for name in names if name not in source.signature and name not in source.constexprs]
    if missing:
        raise InspectionError(f"{source.function}: no type or value for {', '.join(missing)}")
    constants: dict[tuple[int, ...], Any] = {(names.index(name),): value for name, value in source.constexprs.items()}
    aligned = []
    for name, kind in source.signature.items():
        for path, leaf in _leaves(kind, (names.index(name),)):
            if not isinstance(leaf, str):
                constants[path] = leaf
            elif name in source.aligned:
                aligned.append(path)
    return ASTSource(
        function,
        {name: _types(source.signature.get(name, "constexpr")) for name in names},
        constexprs=constants,
        attrs={path: [["tt.divisibility", 16]] for path in aligned},
    )


def compile_for(source: Source, arch: str, again: bool = False) -> Compiled:
    """``source`` compiled for ``arch`` (``"sm_90"``). Raises InspectionError with Triton's reason where it refuses.

    What Triton's own cache holds is compiled only if ``again`` is asked for.
    """
    ast = ast_source(source)
    triton = _triton()
    from triton.backends.compiler import GPUTarget

    options = {"num_warps": source.num_warps, "num_stages": source.num_stages, **source.options}
    target = GPUTarget("cuda", capability(arch), 32)
    try:
        with triton.knobs.compilation.scope():
            triton.knobs.compilation.always_compile |= again
            kernel = triton.compile(ast, target=target, options=options)
    # Triton raises whatever its passes raise; each is a refusal of this kernel, told with its reason.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InspectionError(f"{source.function} for {arch}: Triton cannot compile it: {lines[-1]}") from error
    return Compiled(
        cubin=kernel.asm["cubin"],
        shared_bytes=kernel.metadata.shared,
        tensor_memory_columns=getattr(kernel.metadata, "tmem_size", 0) or 0,
        num_warps=kernel.metadata.num_warps,
        partition_warps=_partition_warps(kernel.asm["ttgir"], kernel.metadata.num_warps),
    )


def _leaves(kind: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every type or constant of an argument, and where it is: the argument's number, then those inside of tuples."""
    if isinstance(kind, tuple):
        for index, part in enumerate(kind):
            yield from _leaves(part, (*path, index))
    else:
        yield path, kind


def _types(kind: Any) -> Any:
    """``kind`` as a signature has it, where constants are told by their place alone."""
    if isinstance(kind, tuple):
        parts = [_types(part) for part in kind]
        return type(kind)(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return kind if isinstance(kind, str) else "constexpr"


def capability(arch: str) -> int:
    """90 of ``sm_90``. Raises InspectionError for what isn't an architecture's name."""
    found = re.fullmatch(r"sm_(\d{2,3})", arch)
    if found is None:
        raise InspectionError(f"arch: wanted a name like sm_90; got {arch!r}")
    return int(found[1])


def toolchain() -> str:
    """Versions that a compiled result depends on, in one line. Raises InspectionError where a tool is missing."""
    triton = _triton()
    nvidia = triton.knobs.nvidia
    for name in _TOOLS:
        tool(name)
    return (
        f"triton {triton.__version__}, ptxas {nvidia.ptxas.version}, ptxas-blackwell {nvidia.ptxas_blackwell.version}"
    )


def tool(name: str) -> str:
    """Path of ``"cuobjdump"`` or ``"nvdisasm"``. Raises InspectionError that says how to mend its absence."""
    try:
        return str(getattr(_triton().knobs.nvidia, name).path)
    except RuntimeError as error:
        raise InspectionError(
            f"{name} is missing: Triton's wheel ships it (pip install --force-reinstall triton), "
            f"or set TRITON_{name.upper()}_PATH to one from the CUDA toolkit"
        ) from error


def _partition_warps(ttgir: str, num_warps: int) -> tuple[int, ...]:
    """Warps of the default partition and of each other one, in Triton's GPU dialect."""
    others = [int(warps) for warps in re.findall(r"partition\d+\(.*?\) num_warps\((\d+)\)", ttgir, re.DOTALL)]
    return (num_warps - sum(others), *others) if others else ()


def _triton() -> Any:
    try:
        import triton
    except ImportError as error:
        raise InspectionError("inspect needs Triton: pip install triton (Linux)") from error
    return triton

"""Compiles the C++ sources at first use into the user's cache, and finds them there from then on.

The library comes in parts: a base that knows the CPU, and one for each kernel of each instruction set, compiled when it
is first needed: one takes seconds, all of them most of a minute.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rls_kernels.cpu import cache

SOURCES = Path(__file__).parent / "csrc"

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-g0")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512", "-DRLS_AVX512")
_AVX512_BF16 = (*_AVX512, "-mavx512bf16", "-DRLS_AVX512_BF16")
# Of each instruction set, best first; `rls_holder` says which does what.
SETS: dict[str, tuple[str, ...]] = {
    "amx_bf16": (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-DRLS_AMX"),
    "avx512_bf16": _AVX512_BF16,
    "avx512": _AVX512,
    "avx2": _AVX2,
}
# In the order of rls_operation and rls_dtype, csrc/call.h.
OPERATIONS = ("prefill", "decode", "backward")
DTYPES = ("float32", "bfloat16", "float16")
# One object a file, for every CPU but for the test of AMX.
_BASE_SOURCES = ("dispatch.cpp", "runs.cpp", "threads.cpp")
_AMX_TEST = "amx_test.cpp"
_BASE = "librls_cpu.so"
# A guess at what compiling takes, beside other work: alone on a core of a Xeon of 2023 (gcc 12, 27 November 2026) the
# base took 1.5 s of CPU time, and a part 2.1 to 3.5 s.
BASE_SECONDS, PART_SECONDS = 2.0, 5.0
# Flags of the builds besides the plain one: with address and undefined-behaviour checks, the same with a fault that
# they must find, and with AVX-512 and AMX emulated in AVX2, so that every kernel's code runs on any machine.
_SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g")
VARIANTS: dict[str, tuple[str, ...]] = {
    "": (),
    "sanitized": _SANITIZED,
    "sanitized_fault": (*_SANITIZED, "-DRLS_PLANT_A_FAULT"),
    "emulated": ("-DRLS_EMULATE",),
}


_NO_COMPILER = "no C++ compiler (c++, g++ or clang++) on PATH; install one, or name one in CXX"


class BuildError(RuntimeError):
    """The kernel can't be built or run on this machine; the message is one line."""


def unfit_reason() -> str:
    """Why no build of the kernel could run on this machine, in one line; empty where one could."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux":
        return f"wanted Linux on x86-64, got {sys.platform} on {platform.machine()}"
    if missing := {"avx2", "fma", "f16c"} - _cpu_flags():
        return f"this CPU lacks {', '.join(sorted(missing))}"
    return ""


def unavailable_reason() -> str:
    """Why the kernel can't be built and run on this machine, in one line; empty where it can. Compiles nothing."""
    return unfit_reason() or ("" if compiler() else _NO_COMPILER)


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, which may hold options, else the first found of c++, g++ and clang++.

    Empty where there is none.
    """
    named = os.environ.get("CXX", "").strip()
    for words in [[named], _words(named)] if named else [["c++"], ["g++"], ["clang++"]]:
        if words and (program := shutil.which(words[0])):
            return [program, *words[1:]]
    return []


def sanitizer_libraries() -> str:
    """LD_PRELOAD for a process that loads a sanitized variant: the checkers must stand before all other libraries."""
    command = [*compiler(), "-print-file-name=libasan.so"], [*compiler(), "-print-file-name=libubsan.so"]
    return " ".join(subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in command)


def build(variant: str = "") -> Path:
    """The base of the library, compiled unless a cache holds it whole; safe when several processes start at once.

    It lies in the user's cache or, where that cannot be written or might be another user's doing, in a private place;
    a warning says why. The name of its folder covers sources, compiler and flags. ``variant`` is one of VARIANTS.
    Raises BuildError with a one-line reason.
    """

    def compile_base(command: list[str], target: Path) -> None:
        objects: list[tuple[str, list[str]]] = [(name, []) for name in _BASE_SOURCES]
        amx = _flags("amx_bf16", variant)
        if _knows(compiler(), amx):
            objects.append((_AMX_TEST, amx))
        else:
            command = [*command, "-DRLS_WITHOUT_AMX"]
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:

            def compile_one(item: tuple[str, list[str]]) -> str:
                name, flags = item
                output = f"{folder}/{name}.o"
                _call([*command, *flags, "-c", *_sources(name), "-o", output], folder)
                return output

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                outputs = list(pool.map(compile_one, objects))
            _link([*command, *outputs], target)

    return _built(_BASE, variant, compile_base)


def build_part(holder: str, operation: str, dtype: str, variant: str = "") -> Path:
    """The part of the instruction set ``holder`` that does ``operation`` in ``dtype``, likewise."""
    flags = [*_flags(holder, variant), f"-DRLS_DTYPE=RLS_{dtype.upper()}"]

    def compile_part(command: list[str], target: Path) -> None:
        _link([*command, *flags, *_sources(f"{operation}.cpp", "threads.cpp")], target)

    return _built(_part(holder, operation, dtype), variant, compile_part)


def is_built(part: tuple[str, str, str] | None = None, variant: str = "") -> bool:
    """Whether the base, or a part by holder, operation and dtype, need not be compiled any more. Compiles nothing."""
    return cache.holds(_folder(_command(variant)), _part(*part) if part else _BASE)


def build_all(holders: Iterable[tuple[str, str, str]], variant: str = "") -> list[Path]:
    """The base and many parts at once, each a holder, an operation and a dtype."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        base = pool.submit(build, variant)
        parts = [pool.submit(build_part, *part, variant) for part in holders]
        return [base.result(), *(part.result() for part in parts)]


def _built(name: str, variant: str, compile_to: Callable[[list[str], Path], None]) -> Path:
    if reason := unavailable_reason():
        raise BuildError(reason)
    if variant not in VARIANTS:
        raise BuildError(f"RLS_CPU_BUILD: wanted one of {', '.join(filter(None, VARIANTS))}; got {variant!r}")
    command = _command(variant)
    refusals = []
    try:
        for folder in cache.folders():
            try:
                found = _built_in(folder / _folder(command), name, lambda target: compile_to(command, target))
            except OSError as error:
                refusals.append(_said(error, folder))
                continue
            if refusals:
                warnings.warn(
                    f"the CPU kernel's cache cannot be used ({refusals[0]}); it lies in {folder}. XDG_CACHE_HOME names "
                    "another place",
                    stacklevel=2,
                )
            return found
    # No folder for temporary files at all.
    except OSError as error:
        refusals.append(_said(error, None))
    raise BuildError(f"no place for the CPU kernel: {'; '.join(refusals)}")


def _built_in(folder: Path, name: str, compile_to: Callable[[Path], None]) -> Path:
    """The library ``name`` in ``folder``, compiled there unless it is there whole. Raises OSError, or BuildError."""
    cache.prepare(folder.parent)
    cache.prepare(folder)
    target = folder / name
    if cache.is_whole(target):
        return target
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.is_whole(target):
            compile_to(target)
    return target


def _said(error: OSError, folder: Path | None) -> str:
    place = error.filename or folder
    return f"{place}: {error.strerror}" if error.strerror and place else str(error)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _link(command: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        library = f"{folder}/{target.name}"
        _call([*command, "-shared", "-o", library, "-ldl", "-lpthread"], folder)
        cache.keep(Path(library), target)


def _flags(holder: str, variant: str) -> list[str]:
    """Of an instruction set; where it is emulated, none that would let the compiler use it."""
    flags = [flag for flag in SETS[holder] if variant != "emulated" or not flag.startswith("-mavx512")]
    return [*flags, f"-DRLS_ISA={holder}_isa"]


def _sources(*names: str) -> list[str]:
    return [str(SOURCES / name) for name in names]


def _knows(compiler: list[str], flags: list[str]) -> bool:
    return _run([*compiler, *flags, "-x", "c++", "-E", os.devnull]).returncode == 0


def _call(command: list[str], folder: str) -> None:
    # The compiler's own files beside its output: the usual place for them may be full.
    done = _run(command, {**os.environ, "TMPDIR": folder})
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise BuildError(f"{command[0]} could not compile the kernel: {errors[0].strip()}")


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from error


def _part(holder: str, operation: str, dtype: str) -> str:
    return f"{holder}-{operation}-{dtype}.so"


def _command(variant: str) -> list[str]:
    return [*compiler(), *_FLAGS, *VARIANTS[variant]]


def _folder(command: list[str]) -> str:
    """The folder's name, which covers all that a library comes from."""
    digest = hashlib.sha256()
    for part in (*command, _version(*compiler()), repr(SETS)):
        digest.update(part.encode(errors="surrogateescape") + b"\0")
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"cpu-{digest.hexdigest()[:20]}"


@functools.cache
def _version(*compiler: str) -> str:
    return _run([*compiler, "--version"]).stdout


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    import torch

    # A container without /proc. Every CPU that has AVX2 has the other two.
    has_avx2 = torch.backends.cpu.get_cpu_capability().startswith(("AVX2", "AVX512"))
    return frozenset({"avx2", "fma", "f16c"} if has_avx2 else ())

"""Compiles the C++ sources at first use into the user's cache, and finds them there from then on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import platformdirs

SOURCES = Path(__file__).parent / "csrc"

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-g0")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512")
# One object a file. What runs on every CPU comes first, so that the linker takes shared template code from there.
_OBJECTS: dict[str, tuple[str, ...]] = {
    "dispatch.cpp": (),
    "runs.cpp": (),
    "threads.cpp": (),
    "avx2.cpp": _AVX2,
    "avx512.cpp": _AVX512,
    "avx512_bf16.cpp": (*_AVX512, "-mavx512bf16"),
}
_AMX = ("amx_bf16.cpp", (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"))
# Flags of the builds besides the plain one: with address and undefined-behaviour checks, the same with a fault that
# they must find, and with AVX-512 and AMX emulated in AVX2, so that every kernel's code runs on any machine.
_SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g")
_EMULATE = "-DRLS_EMULATE"
VARIANTS: dict[str, tuple[str, ...]] = {
    "": (),
    "sanitized": _SANITIZED,
    "sanitized_fault": (*_SANITIZED, "-DRLS_PLANT_A_FAULT"),
    "emulated": (_EMULATE,),
}


class BuildError(RuntimeError):
    """The kernel can't be built or run on this machine; the message is one line."""


def unavailable_reason() -> str:
    """Why the kernel can't run on this machine, in one line; empty where it can. Compiles nothing."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux":
        return f"wanted Linux on x86-64, got {sys.platform} on {platform.machine()}"
    if missing := {"avx2", "fma", "f16c"} - _cpu_flags():
        return f"this CPU lacks {', '.join(sorted(missing))}"
    if compiler() is None:
        return "no C++ compiler (c++, g++ or clang++) on PATH; install one, or name one in CXX"
    return ""


def compiler() -> str | None:
    """Path of the C++ compiler: $CXX, else the first found of c++, g++ and clang++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, names)), None)


def sanitizer_libraries() -> str:
    """LD_PRELOAD for a process that loads a sanitized variant: the checkers must stand before all other libraries."""
    command = [str(compiler()), "-print-file-name=libasan.so"], [str(compiler()), "-print-file-name=libubsan.so"]
    return " ".join(subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in command)


def build(variant: str = "") -> Path:
    """The shared library, compiled unless the cache holds it; safe when several processes start at once.

    The cache key covers sources, compiler and flags. ``variant`` is one of VARIANTS. Raises BuildError with a one-line
    reason.
    """
    if reason := unavailable_reason():
        raise BuildError(reason)
    if variant not in VARIANTS:
        raise BuildError(f"RLS_CPU_BUILD: wanted one of {', '.join(filter(None, VARIANTS))}; got {variant!r}")
    command = [str(compiler()), *_FLAGS, *VARIANTS[variant]]
    target = Path(platformdirs.user_cache_dir("rls_kernels")) / f"cpu-{_key(command)}" / "librls_cpu.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _compile(command, target)
    except OSError as error:
        raise BuildError(f"cannot write the kernel cache {target.parent}: {error.strerror}") from error
    return target


def _compile(command: list[str], target: Path) -> None:
    objects = dict(_OBJECTS)
    if _knows(command[0], _AMX[1]):
        objects.update([_AMX])
    else:
        command = [*command, "-DRLS_WITHOUT_AMX"]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:

        def compile_one(item: tuple[str, tuple[str, ...]]) -> str:
            name, flags = item
            if _EMULATE in command:
                flags = tuple(flag for flag in flags if not flag.startswith("-mavx512"))
            output = f"{folder}/{name}.o"
            _call([*command, *flags, "-c", str(SOURCES / name), "-o", output])
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outputs = list(pool.map(compile_one, objects.items()))
        library = f"{folder}/{target.name}"
        _call([*command, "-shared", *outputs, "-o", library, "-ldl", "-lpthread"])
        # A rename is atomic: no other process ever sees half a library.
        Path(library).replace(target)


def _knows(compiler: str, flags: tuple[str, ...]) -> bool:
    command = [compiler, *flags, "-x", "c++", "-E", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise BuildError(f"{command[0]} could not compile the kernel: {errors[0].strip()}")


def _key(command: list[str]) -> str:
    digest = hashlib.sha256()
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False).stdout
    for part in (*command, version, repr((_OBJECTS, _AMX))):
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@cache
def _cpu_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()

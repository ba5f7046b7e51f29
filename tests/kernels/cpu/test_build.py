"""Building: once, by one process of several, with a reason in one line where it can't."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rls_kernels.cpu import build, library

from rls_bench.backends.cpu import BACKEND


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_without_a_compiler_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no C++ compiler" in build.unavailable_reason()
    assert not BACKEND.available()
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler"):
        build.build()


def test_another_architecture_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert build.unavailable_reason() == "wanted Linux on x86-64, got linux on aarch64"


def test_a_cpu_without_avx2_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_cpu_flags", lambda: frozenset({"fma", "f16c"}))
    assert build.unavailable_reason() == "this CPU lacks avx2"


def test_a_failing_compiler_says_its_first_error(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", script(own_cache / "cxx", "echo 'x.h:1: error: no such header' >&2; exit 1"))
    with pytest.raises(build.BuildError, match=r"could not compile the kernel: x.h:1: error: no such header"):
        build.build()


def test_processes_that_start_at_once_build_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A compiler that takes its time, counts its links, and writes what it was asked for.
    log = own_cache / "links"
    body = f"""
case "$*" in *--version*) echo fake; exit;; *-shared*) echo link >> {log}; sleep 0.3;; esac
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done"""
    environment = {**os.environ, "CXX": script(own_cache / "cxx", body)}
    command = [sys.executable, "-c", "from rls_kernels.cpu import build; print(build.build().read_text())"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in processes] == ["built"] * 3
    assert log.read_text() == "link\n"


def test_flags_and_compiler_are_part_of_the_key(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done'
    monkeypatch.setenv("CXX", script(own_cache / "cxx", body))
    first = build.build()
    assert build.build() == first
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-O0"))
    assert build.build() != first
    monkeypatch.setenv("CXX", script(own_cache / "other", body))
    assert build.build().parent.parent == first.parent.parent
    assert len(list(first.parent.parent.iterdir())) == 3


def test_an_unknown_variant_is_named() -> None:
    names = ", ".join(filter(None, build.VARIANTS))
    with pytest.raises(build.BuildError, match=rf"RLS_CPU_BUILD: wanted one of {names}; got 'fast'"):
        build.build("fast")


def test_a_compiler_without_amx_builds_without_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = own_cache / "log"
    body = f"""
case "$*" in *-E*amx*|*amx*-E*) exit 1;; esac
echo "$@" >> {log}
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done"""
    monkeypatch.setenv("CXX", script(own_cache / "cxx", body))
    build.build()
    assert "-DRLS_WITHOUT_AMX" in log.read_text()
    assert "amx_bf16.cpp" not in log.read_text()


def test_a_forced_instruction_set_must_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    isas = library.library().isas()
    assert isas[-1] == "avx2"
    monkeypatch.setenv("RLS_CPU_ISA", "avx2")
    assert library.library().isa() == "avx2"
    monkeypatch.setenv("RLS_CPU_ISA", "neon")
    with pytest.raises(build.BuildError, match=r"RLS_CPU_ISA: wanted one of .*avx2 on this CPU; got 'neon'"):
        library.library().isa()


def test_importing_compiles_nothing(own_cache: Path) -> None:
    subprocess.run([sys.executable, "-c", "import rls_bench.backends.cpu"], check=True)
    assert list(own_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with pytest.raises(build.BuildError, match="cannot write the kernel cache /dev/null"):
        build.build()

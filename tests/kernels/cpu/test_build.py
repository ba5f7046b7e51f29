"""Building: once, by one process of several, with a reason in one line where it can't."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs
import pytest
import torch
from rls_kernels.cpu import build, cache, launch, library, trial

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
    assert "amx_test.cpp" not in log.read_text()


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


FAKE = 'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done'


@pytest.fixture
def fake(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes what it was asked for at once; temporary places are the test's own, too."""
    monkeypatch.setenv("CXX", script(own_cache / "cxx", FAKE))
    (own_cache / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own_cache / "tmp"))
    cache._of_this_process.cache_clear()
    return own_cache


def built_elsewhere(reason: str) -> Path:
    """Where a build lies that could not use the user's cache; the warning must name ``reason``."""
    with pytest.warns(UserWarning, match=reason):
        return build.build()


def test_a_cache_that_cannot_be_written_gives_way_to_a_private_place(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    found = built_elsewhere("/dev/null")
    assert found.is_relative_to(fake / "tmp" / f"rls_kernels-{os.geteuid()}")
    assert (found.parent.stat().st_mode & 0o777) == 0o700


def test_a_user_whose_home_nobody_knows_builds_in_a_private_place(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(name: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_dir", homeless)
    assert build.build().is_relative_to(fake / "tmp")


@pytest.mark.parametrize("home", [None, "", "relative/cache"])
def test_without_a_home_nothing_is_written_to_a_folder_called_tilde(
    home: str | None, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fake)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(Path(home or "~/.cache") / name))
    assert build.build().is_relative_to(fake / "tmp")
    assert not (fake / "~").exists()
    assert not (fake / "relative").exists()


def test_a_cache_that_others_may_write_is_refused(fake: Path) -> None:
    first = build.build()
    for place in (first, first.parent, first.parent.parent):
        place.chmod(0o777)
        found = first if place == first else built_elsewhere("others may write")
        if place == first:
            # Built anew in the same folder, which is still nobody else's.
            assert build.build() == first
            assert not first.stat().st_mode & stat.S_IWOTH
        else:
            assert found.is_relative_to(fake / "tmp")
            place.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_cache_of_another_user_is_refused(level: int, fake: Path) -> None:
    first = build.build()
    os.chown(first.parents[level - 1], 12345, 12345)
    assert built_elsewhere("belongs to user 12345").is_relative_to(fake / "tmp")


def test_no_place_at_all_is_named(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(build.BuildError, match=r"no place for the CPU kernel: .*/dev/null"):
        build.build()


def test_a_full_disk_gives_way_to_a_private_place(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.disk_usage(fake)
    full = fake / "cache"
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: room._replace(free=0) if Path(path).is_relative_to(full) else room
    )
    assert built_elsewhere("MiB left").is_relative_to(fake / "tmp")


@pytest.mark.parametrize("damage", ["empty", "half", "other", "unsealed"])
def test_a_library_that_is_not_as_it_was_sealed_is_built_anew(damage: str, fake: Path) -> None:
    library_file = build.build()
    if damage == "unsealed":
        library_file.with_name(library_file.name + ".sha256").unlink()
    else:
        library_file.write_text({"empty": "", "half": "bui", "other": "guilt\n"}[damage])
    assert not cache.is_whole(library_file)
    assert build.build() == library_file
    assert library_file.read_text() == "built\n"


def test_a_compiler_may_come_with_options_and_blanks(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake / "log"
    spaced = fake / "a folder"
    spaced.mkdir()
    program = script(spaced / "cxx", f'echo "$@" >> {log}\n{FAKE}')
    monkeypatch.setenv("CXX", f"'{program}' -m64 -Wall")
    build.build()
    assert all(line.startswith("-m64 -Wall ") for line in log.read_text().splitlines())
    monkeypatch.setenv("CXX", program)
    assert build.compiler() == [program]
    monkeypatch.setenv("CXX", "'unbalanced")
    assert build.compiler() == []


def test_a_compiler_that_cannot_be_run_is_named(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake / "not-a-program"
    program.write_bytes(b"\x00")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    with pytest.raises(build.BuildError, match="not-a-program cannot be run"):
        build.build()
    assert library.to_build([library.PREFILL], 0) == {}


def test_a_part_is_one_kernel_of_one_instruction_set(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake / "log"
    monkeypatch.setenv("CXX", script(fake / "logging", f'echo "$@" >> {log}\n{FAKE}'))
    base = build.build()
    assert not {"prefill.cpp", "decode.cpp", "backward.cpp"} & {Path(word).name for word in log.read_text().split()}
    log.write_text("")
    found = build.build_part("avx2", "decode", "bfloat16")
    assert found == base.with_name("avx2-decode-bfloat16.so")
    (line,) = [line for line in log.read_text().splitlines() if "--version" not in line]
    assert [Path(word).name for word in line.split() if word.endswith(".cpp")] == ["decode.cpp", "threads.cpp"]
    assert "-DRLS_DTYPE=RLS_BFLOAT16" in line
    assert "-mavx512" not in line
    assert build.build_part("avx2", "decode", "bfloat16") == found
    assert line == log.read_text().strip()


def test_parts_are_built_as_calls_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = build.build_part

    def build_part(*part: str) -> Path:
        asked.append(part[:3])
        return real(*part)

    monkeypatch.setattr(build, "build_part", build_part)
    monkeypatch.setattr(library, "library", functools.cache(library.Library))
    # The set takes what it has not of its own from a lower one.
    best = next(isa for isa in library.library().isas() if isa not in ("amx_bf16", "avx512_bf16"))
    # What other tests had installed is the process's, as the loaded file is.
    for operation in range(len(build.OPERATIONS)):
        assert library.library()._c.rls_install(best.encode(), operation, 0, None) == 0
    query, key, lone = torch.randn(1, 1, 20, 8), torch.randn(1, 1, 9, 8), torch.ones(1, 1, 1)
    for length in (20, 1, 1):
        operands = launch.Operands(query[:, :, :length], key, key, key[..., 0], lone, None, 1.0, False)
        launch.forward(operands, 0.0, library.NO_ROWS)
    assert asked == [(best, "prefill", "float32"), (best, "decode", "float32")]
    out, rows = launch.forward(operands, 0.0, library.NORMALISERS)
    launch.backward(operands, 0.0, out, rows)
    assert asked[2:] == [(best, "backward", "float32")]


def test_a_part_that_cannot_be_built_is_a_build_error_and_can_be_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = build.build_part
    monkeypatch.setattr(build, "build_part", lambda *_: (_ for _ in ()).throw(build.BuildError("no room")))
    fresh = library.Library()
    with pytest.raises(build.BuildError, match="no room"):
        fresh.install(library.DECODE, 0)
    monkeypatch.setattr(build, "build_part", real)
    fresh.install(library.DECODE, 0)


def test_what_must_still_be_compiled_is_known_without_compiling(fake: Path) -> None:
    operations, bfloat16 = launch.operations(decodes=True, backward=True), library.DTYPES[torch.bfloat16]
    assert library.to_build(operations, bfloat16) == {
        "base": build.BASE_SECONDS,
        "decode bfloat16": build.PART_SECONDS,
        "backward bfloat16": build.PART_SECONDS,
    }
    build.build()
    # The real base, which is loaded in this process, names the parts.
    holders = [library.library().part_for(library.library().isa(), each, bfloat16) for each in operations]
    assert list(library.to_build(operations, bfloat16)) == [" ".join(part) for part in holders]
    build.build_part(*holders[0])
    assert library.to_build(operations, bfloat16) == {" ".join(holders[1]): build.PART_SECONDS}


def test_without_a_compiler_nothing_is_to_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert library.to_build([library.PREFILL], 0) == {}


def test_without_proc_torch_tells_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = build._cpu_flags()
    build._cpu_flags.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    try:
        assert build._cpu_flags() <= real
        assert build.unfit_reason() == ""
    finally:
        build._cpu_flags.cache_clear()


def test_a_library_that_cannot_be_loaded_is_a_build_error(fake: Path) -> None:
    with pytest.raises(build.BuildError, match=r"librls_cpu\.so cannot be loaded"):
        library.Library()


def test_the_trial_passes_on_a_right_kernel_whatever_torch_defaults_to() -> None:
    with torch.device("meta"):
        torch.set_default_dtype(torch.bfloat16)
        try:
            trial.failure.cache_clear()
            assert trial.failure() == ""
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("fault", [0.0, float("nan")])
def test_the_trial_fails_on_a_wrong_kernel(fault: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real = launch.forward
    monkeypatch.setattr(launch, "forward", lambda *given: (fault * real(*given)[0], None))
    trial.failure.cache_clear()
    try:
        assert "its self-test gave an error of" in trial.failure()
        assert not BACKEND.proven()
        assert BACKEND.proven().mendable
    finally:
        trial.failure.cache_clear()

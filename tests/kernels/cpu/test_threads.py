"""`make sanitize-threads`: no data race among callers and their teams, and a planted one is found."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rls_kernels.cpu import build

DRIVER = Path(__file__).parent / "threads_driver.cpp"
# AMX leaves its tiles to the thread alone; its code is otherwise AVX-512's.
WITHOUT_AMX = "-DRLS_WITHOUT_AMX"


def compile_to(target: Path, *arguments: str | Path) -> Path:
    command = [*build.compiler(), "-w", "-std=c++17", "-O1", "-g", "-fsanitize=thread", WITHOUT_AMX]
    words = [*command, f"-I{build.SOURCES}", "-mavx2", "-mfma", "-mf16c", *arguments, "-o", target]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if "libtsan" in done.stderr:
        pytest.skip("the compiler has no ThreadSanitizer (Debian: apt-get install libtsan2)")
    assert done.returncode == 0, done.stderr[-2000:]
    return target


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_callers_and_their_teams_share_nothing_that_is_written(tmp_path: Path) -> None:
    def compiled(source: str) -> Path:
        return compile_to(tmp_path / f"{source}.o", *build._OBJECTS[source], "-c", build.SOURCES / source)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, build._OBJECTS))
    runs = {}
    for name, flags in (("sound", ()), ("racing", ("-DRLS_PLANT_A_RACE",))):
        program = compile_to(tmp_path / name, *flags, DRIVER, *objects, "-lpthread", "-ldl")
        runs[name] = subprocess.run([program], capture_output=True, text=True, check=False)
    if "FATAL: ThreadSanitizer: unexpected memory mapping" in runs["sound"].stderr:
        pytest.skip("this kernel maps memory where ThreadSanitizer cannot: sysctl vm.mmap_rnd_bits=28")
    assert (runs["sound"].returncode, runs["sound"].stdout) == (0, "done\n"), runs["sound"].stderr[-2000:]
    assert "WARNING: ThreadSanitizer: data race" in runs["racing"].stderr

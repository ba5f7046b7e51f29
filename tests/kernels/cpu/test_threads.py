"""`make sanitize-threads`: no data race among callers and their teams, and a planted one is found."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rls_kernels.cpu import build

DRIVER = Path(__file__).parent / "threads_driver.cpp"
# Those that have a float32 kernel, which the program calls.
SETS = ("avx512", "avx2")


def compile_to(target: Path, *arguments: str | Path) -> Path:
    # AMX leaves its tiles to the thread alone; its code is otherwise AVX-512's.
    command = [*build.compiler(), "-w", "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-DRLS_WITHOUT_AMX"]
    words = [*command, f"-I{build.SOURCES}", *arguments, "-o", target, "-lpthread", "-ldl"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if "libtsan" in done.stderr:
        pytest.skip("the compiler has no ThreadSanitizer (Debian: apt-get install libtsan2)")
    assert done.returncode == 0, done.stderr[-2000:]
    return target


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_callers_and_their_teams_share_nothing_that_is_written(tmp_path: Path) -> None:
    def part(isa: str, operation: str) -> Path:
        sources = [build.SOURCES / name for name in (f"{operation}.cpp", "threads.cpp")]
        flags = (*build.SETS[isa], f"-DRLS_ISA={isa}_isa", "-DRLS_DTYPE=RLS_FLOAT32", "-fPIC", "-shared")
        return compile_to(tmp_path / f"{isa}-{operation}.so", *flags, *sources)

    named = [(isa, operation) for isa in SETS for operation in build.OPERATIONS]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(part, *zip(*named, strict=True)))
    # Each kernel as the program is told of it: its set, the number of its operation, and the file.
    words = [
        str(word)
        for (isa, operation), file in zip(named, parts, strict=True)
        for word in (isa, build.OPERATIONS.index(operation), file)
    ]
    base = [build.SOURCES / name for name in ("dispatch.cpp", "runs.cpp")]
    runs = {}
    for name, flags in (("sound", ()), ("racing", ("-DRLS_PLANT_A_RACE",))):
        program = compile_to(tmp_path / name, *flags, DRIVER, *base)
        runs[name] = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if "FATAL: ThreadSanitizer: unexpected memory mapping" in runs["sound"].stderr:
        pytest.skip("this kernel maps memory where ThreadSanitizer cannot: sysctl vm.mmap_rnd_bits=28")
    assert (runs["sound"].returncode, runs["sound"].stdout) == (0, "done\n"), runs["sound"].stderr[-2000:]
    assert "WARNING: ThreadSanitizer: data race" in runs["racing"].stderr

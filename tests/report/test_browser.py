"""The page in a real browser, from a file and with no network: no console message, light and dark both drawn."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from drawn_records import write
from PIL import Image
from report.results import gpu, run

from rls_bench.report import html, read

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1200,3000 --enable-logging=stderr"
)
# The browser's own way to "off": no name resolves, and no proxy answers.
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)"),
]


def browse(page: Path, shot: Path, *options: str) -> list[str]:
    """Open ``page``, save a screenshot, and return what it wrote to the console."""
    command = [str(CHROMIUM), *FLAGS.split(), *OFFLINE, *options, f"--user-data-dir={shot.parent / shot.stem}"]
    done = subprocess.run(
        [*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, text=True, timeout=200, check=False
    )
    assert shot.exists(), done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "report.html"
    path.write_text(html(read([write(folder / "r.jsonl", [*run(), *gpu()])])), encoding="utf-8")
    return path


@pytest.mark.parametrize(("scheme", "paper"), [(1, (255, 255, 255)), (0, (20, 24, 29))], ids=["light", "dark"])
def test_it_loads_without_a_word_in_either_scheme(
    page: Path, tmp_path: Path, scheme: int, paper: tuple[int, int, int]
) -> None:
    shot = tmp_path / "shot.png"
    assert browse(page, shot, f"--blink-settings=preferredColorScheme={scheme}") == []
    with Image.open(shot) as image:
        drawn = image.convert("RGB")
        assert drawn.getpixel((2, 2)) == paper
        # The blue of a backend's line, somewhere below the tables.
        colours = {colour for _, colour in drawn.getcolors(maxcolors=1 << 24) or []}
        assert (1, 115, 178) in colours


def test_the_console_would_have_been_heard(tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text("<img src='https://example.org/x.png'><script>console.error('heard')</script>")
    assert any("heard" in line for line in browse(loud, tmp_path / "shot.png"))

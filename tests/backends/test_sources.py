"""Whether the backends of another tree fit today's harness, told from their text."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rls_bench.backends import registry, sources
from rls_bench.errors import UnknownBackend

BACKENDS = Path(sources.__file__).parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(BACKENDS, tmp_path / "rls_bench" / "backends", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_todays_own_fit(tree: Path) -> None:
    assert sources.unfit(tree) == ""


def test_another_interface_is_named(tree: Path) -> None:
    interface = tree / "rls_bench" / "backends" / "interface.py"
    text = interface.read_text().replace("def prepare(self, inputs: Inputs)", "def prepare(self, inputs, device)")
    interface.write_text(text)
    assert sources.unfit(tree) == "its backends have another interface: prepare(self, inputs, device)"


def test_a_module_that_today_lacks_is_named_and_one_that_the_tree_brings_along_is_not(tree: Path) -> None:
    eager = tree / "rls_bench" / "backends" / "eager.py"
    (eager.parent / "shared.py").write_text("")
    eager.write_text("from rls_bench.backends.shared import nothing\n" + eager.read_text())
    assert sources.unfit(tree) == ""
    eager.write_text("from rls_bench.inputs import Inputs\n" + eager.read_text())
    assert sources.unfit(tree) == "its backends import rls_bench.inputs, which today's harness does not have"
    assert sources.unfit(tree / "missing") == "it has no rls_bench/backends"


def test_a_name_may_say_where_its_sources_lie() -> None:
    name = sources.named("eager", Path("/somewhere"))
    registry.check_name(name)
    with pytest.raises(UnknownBackend):
        registry.check_name("nobody@/somewhere")

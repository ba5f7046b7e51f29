"""What earlier runs took is kept privately, and nothing in the file can do more than mislead an estimate."""

from __future__ import annotations

from pathlib import Path

import pytest

from rls_bench.runner import remembered
from rls_bench.runner.forecast import Slice


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache" / "durations.json"
    monkeypatch.setattr(remembered, "_path", lambda: path)
    return path


def test_what_was_learnt_last_is_what_is_known() -> None:
    remembered.save({"a": Slice(1, 2, 3, 4, 5), "b": Slice(1)})
    remembered.save({"a": Slice(2, 2, 3, 4, 5)})
    assert remembered.load() == {"b": Slice(1), "a": Slice(2, 2, 3, 4, 5)}


@pytest.mark.parametrize("text", ["", "[1]", '{"a": [1, 2]}', '{"a": [-1, 0, 0, 0, 0]}', '{"a": [1e9, 0, 0, 0, 0]}'])
def test_nonsense_is_as_good_as_nothing(text: str, kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text(text)
    assert remembered.load() == {}


def test_a_folder_that_cannot_be_written_is_no_error(kept: Path) -> None:
    kept.parent.write_text("a file")
    remembered.save({"a": Slice()})
    assert remembered.load() == {}


def test_it_does_not_grow_without_end() -> None:
    remembered.save({str(number): Slice() for number in range(1500)})
    assert len(remembered.load()) == 1000

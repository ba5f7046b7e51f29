"""The page: verdict first, nothing from outside, everything escaped, a table behind each plot."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from drawn_records import problem, record, write
from report.results import HOSTILE, gpu, run

from rls_bench.report import html, read


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    path = write(tmp_path_factory.mktemp("report") / "r.jsonl", [*run(), *gpu()])
    return Reader(html(read([path])))


def test_the_verdict_comes_first(page: Reader) -> None:
    names = [attributes["id"] for attributes in page.all("section")]
    assert names[0] == "verdict"
    assert {"machines", "latency", "steering-cost", "error", "pareto", "roofline", "across", "not-ok"} < set(names)
    assert "On AMD EPYC, 2 threads, run cpu in" in page.text
    assert "On NVIDIA H100 (AMD EPYC, 16 threads), run cpu in" in page.text
    assert "cells are wrong or broken: triton" in page.text


def test_each_plot_has_words_and_a_table_behind_it(page: Reader) -> None:
    images = page.all("img")
    assert len(images) == 8
    assert len(page.all("details")) == len(images)
    assert all(image["alt"] for image in images)
    for image in images:
        drawn = base64.b64decode((image["src"] or "").removeprefix("data:image/svg+xml;base64,")).decode()
        assert "mathdefault" not in drawn
        assert "prefers-color-scheme: dark" in drawn


def test_nothing_is_fetched_and_nothing_runs(page: Reader) -> None:
    assert not page.all("script")
    for tag, attributes in page.tags:
        source = attributes.get("src") or attributes.get("href") or ""
        assert source.startswith(("data:", "#")) or not source, tag
    (policy,) = [found["content"] for found in page.all("meta") if found.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    styles = re.search(r"url\(|@import", page.text)
    assert styles is None


def test_names_and_reasons_are_shown_as_they_are(page: Reader) -> None:
    assert HOSTILE in page.text
    assert "needs CUDA" in page.text
    assert "eps must be 0" in page.text


def test_a_report_of_little_says_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [record("triton", problem(), status="unavailable", reason="needs CUDA")])
    text = Reader(html(read([path]))).text
    assert "run nothing yet" in text
    assert "No latency was measured." in text
    assert "run with --probe ncu on a GPU" in text
    assert "1 unavailable." in text

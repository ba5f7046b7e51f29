"""The figures that documents quote from files under ``results/``, written anew: ``python -m benchmarks.docs_figures``.

A table stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``, a single figure before
``<!-- figure: NAME -->``; what each NAME is, is below. ``make docs-figures`` rewrites them, and a test fails where a
document and the file that it quotes differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/inspector.md", "docs/triton-kernels.md")
INSPECTION = "results/inspection.json"
# What `make bench` recorded on the machine that the README names.
BENCH = "results/documents/make-bench.jsonl"
_TABLE = re.compile(r"(<!-- figures: (?P<name>[\w -]+) -->\n)(?P<text>.*?)(<!-- /figures -->)", re.DOTALL)
_FIGURE = re.compile(r"(?P<text>[\w.,]+)(?P<mark><!-- figure: (?P<name>[\w -]+) -->)")

_ARCHES = ("sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
_PLAIN = {"is_causal": False, "eps": False, "stats": False, "strength_layout": "scalar"}
_ROWS: dict[str, dict[str, object]] = {
    "unsteered": {"strength_layout": "none"},
    "λ[scalar]": {},
    "λ[bhq]": {"strength_layout": "bhq"},
    "causal λ[scalar]": {"is_causal": True},
    "eps λ[scalar]": {"eps": True},
    "stats λ[scalar]": {"stats": True},
}


@cache
def _inspections() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / INSPECTION).read_text(encoding="utf-8"))["inspections"]
    return found


def _case(arch: str, head_dim: int, kernel: str = "prefill", **changes: object) -> dict[str, Any]:
    """The inspection of one bfloat16 kernel; raises LookupError where the file has none or several."""
    wanted = {**_PLAIN, "kernel": kernel, "head_dim": head_dim, "dtype": "bf16", "extra": "", **changes}
    found = [each for each in _inspections() if each["arch"] == arch and each["variant"] == wanted]
    if len(found) != 1:
        raise LookupError(f"{INSPECTION}: wanted one case of {arch} {wanted}; got {len(found)}")
    return found[0]


def _loop(case: dict[str, Any]) -> str:
    """Instructions a score of the hot loop, FP32 ones in brackets."""
    hot = case["hot_loops"][0]
    return f"{hot['instructions']:.2f} ({hot['fp32']:.2f})"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _source() -> str:
    toolchain = json.loads((ROOT / INSPECTION).read_text(encoding="utf-8"))["toolchain"]
    return f"\n`{INSPECTION}`, by `make accept-inspection`: {toolchain}; compiled, so that no machine shows in it.\n"


def _steering() -> str:
    """Prefill at D 64, by what is asked of it."""
    arches = ("sm_80", "sm_90", "sm_100", "sm_120")
    rows = [["prefill D64 bf16", *arches]]
    rows += [[name, *(_loop(_case(arch, 64, **changes)) for arch in arches)] for name, changes in _ROWS.items()]
    return _markdown(rows) + _source()


def _kernels() -> str:
    """Both head dims, with tiles, and the wide kernels' loops."""
    rows = [
        [
            "bf16",
            "tile, warps",
            "unsteered",
            "steered, λ a number or per head",
            "λ per query",
            "exact eps",
            "statistics",
        ]
    ]
    rows[0] += ["wider spans: eps, statistics"]
    for head_dim in (64, 128):
        for arch in _ARCHES:
            plain = _case(arch, head_dim)
            names = ("unsteered", "λ[scalar]", "λ[bhq]", "eps λ[scalar]", "stats λ[scalar]")
            loops = [_loop(_case(arch, head_dim, **_ROWS[name])) for name in names]
            wide = [_case(arch, head_dim, "prefill-wide", **{name: True}) for name in ("eps", "stats")]
            tile = f"{plain['block_m']} × {plain['block_n']}, {plain['num_warps']}"
            both = ", ".join(f"{each['hot_loops'][0]['instructions']:.2f}" for each in wide)
            rows.append([f"D {head_dim}, {arch}", tile, *loops, both])
    return _markdown(rows) + _source()


def _groups() -> str:
    """Where the unsteered loop's instructions go."""
    arches = ("sm_80", "sm_90", "sm_100", "sm_120")
    mixes = [_case(arch, 64, strength_layout="none")["hot_loops"][0]["mix"] for arch in arches]
    names = sorted({name for mix in mixes for name in mix})
    groups = sorted(names, key=lambda name: -max(mix.get(name, 0.0) for mix in mixes))
    rows = [["unsteered, by group", *arches]]
    rows += [[name, *(f"{mix[name]:.2f}" if name in mix else "" for mix in mixes)] for name in groups]
    return _markdown(rows)


def _bench() -> str:
    """The first table of the kept run, without what has no latency there."""
    from io import StringIO

    from rich.console import Console

    from rls_bench.cli import tables
    from rls_bench.records import record
    from rls_bench.records.latency import Latencies

    records = record.read_all([ROOT / BENCH], [])
    timed = [each for each in tables.by_problem(records)[0] if each.samples_ns]
    written = StringIO()
    tables.show(Console(file=written, width=100, markup=False), timed, timed[0].noise_floor, Latencies(records))
    table, _, _ = written.getvalue().partition("noise floor")
    lines = "\n".join(line.rstrip() for line in table.strip().splitlines())
    return f"```text\n{lines}\n```\n"


NAMED: dict[str, Callable[[], str]] = {
    "bench": _bench,
    "steering": _steering,
    "kernels": _kernels,
    "groups": _groups,
    "cases": lambda: str(len(_inspections())),
    "spilling cases": lambda: str(sum(bool(each["spill_bytes"]) for each in _inspections())),
}


def renewed(text: str) -> str:
    """``text`` with every marked figure as its file has it; raises KeyError for a name that is none of ``NAMED``."""
    text = _TABLE.sub(lambda found: f"{found[1]}\n{NAMED[found['name']]()}{found[4]}", text)
    return _FIGURE.sub(lambda found: NAMED[found["name"]]() + found["mark"], text)


def main() -> None:
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Inspections and models as tables for a terminal; every table of a model says so in its title."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from rls_bench.inspector import l2_sweep
from rls_bench.inspector.baseline import Listing
from rls_bench.inspector.floors import Prediction
from rls_bench.inspector.inspection import Inspection
from rls_bench.inspector.l2 import Replay

_UNSURE = "?: rests on a figure that was recalled, not read"


def _table(title: str, *headings: str, names: int = 1) -> Table:
    """A table whose first ``names`` columns are text, the others figures."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(
            heading, justify="left" if index < names else "right", no_wrap=index == 0 or heading == "measured"
        )
    return table


def resources(listing: Listing) -> Iterator[Table]:
    """One table an architecture: what each case takes of an SM, and what its hot loop costs a score."""
    for arch in dict.fromkeys(inspection.arch for inspection in listing.inspections):
        table = _table(
            f"{arch}, {listing.toolchain}; instr, fp32: of the hot loop, a score; B a thread, KiB a block",
            *("case", "tile", "path", "limited by"),
            *("blocks/SM", "warps/SM", "regs", "stack B", "spill B", "smem KiB", "instr", "fp32", "adds instr (fp32)"),
            names=4,
        )
        for inspection in listing.inspections:
            if inspection.arch == arch and not inspection.error:
                table.add_row(*_resources(inspection, listing))
        yield table


def _resources(inspection: Inspection, listing: Listing) -> list[str]:
    hot = inspection.hot
    taxes = listing.taxes.get(inspection.key, [])
    return [
        escape(inspection.variant.title),
        f"{inspection.block_m}×{inspection.block_n} w{inspection.num_warps} s{inspection.num_stages}",
        inspection.tensor_path,
        inspection.limited_by,
        str(inspection.blocks_per_sm),
        str(inspection.warps_per_sm),
        str(inspection.registers),
        str(inspection.stack_bytes),
        str(inspection.spill_bytes),
        f"{inspection.shared_bytes / 1024:.0f}",
        f"{hot.instructions:.2f}" if hot else "no loop",
        f"{hot.fp32:.2f}" if hot else "",
        "\n".join(
            f"{tax.of} {tax.instructions:+.2f} ({tax.fp32:+.2f}){'' if tax.same_tile else ', other tile'}"
            for tax in taxes
        ),
    ]


def mix(listing: Listing) -> Table:
    """What each hot loop is made of: instructions a score by group."""
    hot = [(inspection, inspection.hot) for inspection in listing.inspections if inspection.hot]
    groups = sorted({group for _, loop in hot for group in loop.mix})
    table = _table("Hot loop, instructions a score by group", "case", *groups, "all")
    for inspection, loop in hot:
        cells = [f"{loop.mix[group]:.2f}" if group in loop.mix else "" for group in groups]
        table.add_row(escape(inspection.key), *cells, f"{loop.instructions:.2f}")
    return table


def floors(predictions: Sequence[Prediction]) -> Table:
    """The model's limits of one problem on every GPU."""
    problem = predictions[0].problem
    limits = list(predictions[0].steered.limits_ns)
    table = _table(
        f"MODEL, not measured: least time of prefill, {problem.title}, µs ({_UNSURE})",
        *("GPU", "bound by", *limits, "floor", "steering tax", "tax if issue binds", "measured"),
        names=2,
    )
    for row in predictions:
        steered = row.steered
        cells = [_figure(steered.limits_ns[limit] / 1e3, limit in steered.unsure) for limit in limits]
        table.add_row(
            row.gpu.name,
            steered.binding,
            *cells,
            _figure(steered.floor_ns / 1e3, steered.binding in steered.unsure),
            f"{row.tax_percent:+.1f} %",
            f"{row.issue_tax_percent:+.1f} %",
            "not measured yet",
        )
    return table


def _figure(value: float, is_unsure: bool) -> str:
    return f"{value:.1f}{'?' if is_unsure else ''}"


def replays(swept: Sequence[l2_sweep.Swept], title: str) -> Table:
    """Predicted hit rates by length, how long a sequence leaves K, V and b in L2, and DRAM traffic at the longest."""
    lengths = sorted({row.length for row in swept})
    table = _table(
        f"MODEL, not measured: L2 read hit rate of prefill, {title}, by number of keys ({_UNSURE})",
        *("GPU", "L2 MB", *(short(length) for length in lengths)),
        *("K, V stay up to", "b stays up to", f"DRAM GB at {short(lengths[-1])}", "of least", "measured"),
    )
    for gpu in dict.fromkeys(row.gpu for row in swept):
        for name, of in (("", "whole"), (", half of L2", "half")):
            rows = {row.length: getattr(row, of) for row in swept if row.gpu == gpu}
            last = rows[lengths[-1]]
            mark = gpu.mark("l2_bytes", "sms")
            table.add_row(
                gpu.name + name,
                f"{gpu.l2_bytes / 1e6:.0f}{gpu.mark('l2_bytes')}",
                *(f"{100 * rows[length].hit_rate:.1f}{mark}" for length in lengths),
                _stays(rows, "key", "value"),
                _stays(rows, "bias"),
                f"{last.dram_bytes / 1e9:.1f}{mark}",
                f"{last.dram_bytes / last.least_bytes:.1f}×",
                "not measured yet",
            )
    return table


def _stays(rows: dict[int, Replay], *tensors: str) -> str:
    staying = 0
    for length in sorted(rows):
        if not all(rows[length].tensors[name].resident for name in tensors):
            break
        staying = length
    return short(staying) if staying else "never"


def short(length: int) -> str:
    """``128k`` of 131072."""
    return f"{length // 1024}k" if length >= 1024 else str(length)

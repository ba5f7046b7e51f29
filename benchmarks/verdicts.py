"""What the verdicts say of records whose truth is known: ``python -m benchmarks.verdicts [DRAWS]``, two minutes.

Everything goes through the functions that the command line calls. Beside compare stand the rules of benchstat (U test
at 5 %), asv (U test at 0.2 %, beyond a factor) and pyperf (t test at 5 %) on the same samples. The slow tests ask for
more draws and hold the bars.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import noise

PLANTED = 19


@dataclass(frozen=True)
class Row:
    """One figure, a share unless ``unit`` says otherwise; without a bar it stands beside others."""

    scenario: str
    what: str
    found: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the bar is met, where there is one."""
        low, high = self.at_least, self.at_most
        return (low is None or self.found >= low) and (high is None or self.found <= high)

    @property
    def bar(self) -> str:
        """``≤ 1 %``."""
        if self.at_most is not None:
            return f"≤ {100 * self.at_most:.3g} %"
        return "" if self.at_least is None else f"≥ {100 * self.at_least:.3g} %"


def _sides() -> Callable[[list[Any], list[Any]], Any]:
    """A function that compares two lists of records by way of files."""
    from rls_bench.compare import compare, load

    folder = Path(tempfile.mkdtemp(prefix="verdicts"))

    def judge(base: list[Any], new: list[Any], **options: Any) -> Any:
        paths = [noise.write(folder / f"{name}.jsonl", side) for name, side in (("base", base), ("new", new))]
        return compare(*map(load, paths), **options)

    return judge


def _is_alarm(comparison: Any) -> bool:
    return bool({"SLOWER", "FASTER"} & comparison.counts.keys())


def _finds(comparison: Any, cell: int = PLANTED) -> bool:
    return any(row.verdict == "SLOWER" and noise.cell_of(row) == cell for row in comparison.rows)


def same_code(draws: int, laws: tuple[str, ...] = (*noise.STEADY, *noise.SHIFTED)) -> Iterator[Row]:
    """A whole run against another of the same code, and the same with 5 % planted on one cell."""
    judge = _sides()
    plans = [(law, 3) for law in laws] + [(law, 6) for law in ("bimodal", "twospeed") if law in laws]
    plans += [(law, count) for law in ("launch1",) if law in laws for count in (6, 10)]
    found_at_least = {("launch1", 3): 0.65, ("launch1", 6): 0.85, ("launch1", 10): 0.98}
    for law, launches in plans:
        rng = np.random.default_rng(launches)
        alarms = misses = found = 0.0
        rivals = np.zeros((2, 4))
        for _ in range(draws):
            base, new = (noise.draw(rng, law, noise.CELLS, launches, start=start) for start in (0.0, launches))
            one = noise.suite(rng, law, launches, offsets=base)
            compared = judge(one, noise.suite(rng, law, launches, offsets=new))
            alarms += _is_alarm(compared) / draws
            misses += np.mean([row.low is not None and not row.low <= 1 <= row.high for row in compared.rows]) / draws
            slow = noise.suite(rng, law, launches, offsets=new, slower={PLANTED: 1.05})
            found += _finds(judge(one, slow)) / draws
            rivals[0] += [called.any() / draws for called in _rivals(base, new)]
            rivals[1] += [called[0] / draws for called in _rivals(base[:1], new[:1] + math.log(1.05))]
        shifted = law in noise.SHIFTED
        name = f"{law}, {launches} launches"
        yield Row(name, "same code: runs with SLOWER or FASTER", alarms, None if shifted else 0.01)
        yield Row(name, "same code: 90 % intervals without 1", misses, None if shifted or law == "quant" else 0.13)
        yield Row(name, "5 % found", found, at_least=found_at_least.get((law, launches)))
        for rule, alarm, find in zip(("benchstat", "asv 1.1", "asv 1.03", "pyperf"), *rivals, strict=True):
            yield Row(name, f"{rule}: same code, runs with an alarm", float(alarm))
            yield Row(name, f"{rule}: 5 % found", float(find))


def _rivals(base: Any, new: Any) -> list[Any]:
    """Which cells the rules of benchstat, asv and pyperf call slower; [cells] each."""
    from scipy import stats

    one, other = (np.exp(side.reshape(len(side), -1)) for side in (base, new))
    chance = stats.mannwhitneyu(one, other, axis=1, method="asymptotic").pvalue
    factor = np.median(other, axis=1) / np.median(one, axis=1)
    by_t = stats.ttest_ind(one, other, axis=1).pvalue
    is_slower = other.mean(axis=1) > one.mean(axis=1)
    asv = [(chance < 0.002) & (factor > beyond) for beyond in (1.1, 1.03)]
    return [(chance < 0.05) & (factor > 1), *asv, (by_t < 0.05) & is_slower]


def astray(draws: int) -> Iterator[Row]:
    """One launch of one other cell, a noisy machine in the same file, all cells just below the threshold."""
    judge = _sides()
    for factor in (1.1, 1.2, 1.5, 3.0):
        rng = np.random.default_rng(1)
        found = 0.0
        for _ in range(draws):
            base = noise.draw(rng, "launch0.4", noise.CELLS, 3)
            base[-1, 1] += math.log(factor)
            new = noise.suite(rng, "launch0.4", 3, slower={PLANTED: 1.05})
            found += _finds(judge(noise.suite(rng, "launch0.4", 3, offsets=base), new)) / draws
        yield Row(f"launch0.4; one launch of one cell × {factor}", "5 % found elsewhere", found, at_least=0.95)
    rng = np.random.default_rng(2)
    found = 0.0
    for _ in range(draws):
        sides = [noise.suite(rng, "launch0.3", 3, slower=slower) for slower in ({}, {PLANTED: 1.05})]
        for side in sides:
            side += noise.suite(rng, "launch5", 3, run="noisy", machine=noise.machine("noisy"))
        found += any(
            row.verdict == "SLOWER" and noise.cell_of(row) == PLANTED and row.machine == noise.machine().fingerprint
            for row in judge(*sides).rows
        )
    yield Row("launch0.3, and launch5 on another machine in the file", "5 % found", found / draws, at_least=0.95)
    for strict in (False, True):
        rng = np.random.default_rng(3)
        alarms = 0.0
        everywhere = dict.fromkeys(range(noise.CELLS), 1.029)
        for _ in range(draws):
            sides = noise.suite(rng, "launch1", 3), noise.suite(rng, "launch1", 3, slower=everywhere)
            alarms += "SLOWER" in judge(*sides, strict=strict).counts
        how = "strict" if strict else "as usual"
        what = "runs with a SLOWER beyond 3 %"
        yield Row(f"launch1, all cells truly + 2.9 %, {how}", what, alarms / draws, 0.05 if strict else None)


def standing(draws: int) -> Iterator[Row]:
    """Which records speak: a label that turned wrong, an older commit, batches that want other backends."""
    from rls_bench import report
    from rls_bench.choose import choose, gather

    judge = _sides()
    rng = np.random.default_rng(4)
    broken = chosen = newest = agrees = batches = 0
    for draw in range(draws):
        good = noise.suite(rng, "launch0.5", 3)
        victim = "backend-0" if draw % 2 else "backend-0#2"
        bad = [
            replace(each, status="wrong", reason="a timed result", samples_ns={}) if each.label == victim else each
            for each in noise.suite(rng, "launch0.5", 3)
        ]
        compared = judge(good, bad)
        wrong = [row for row in compared.rows if row.backend == "backend-0"]
        broken += compared.exit_code == 1 and all(row.verdict == "BROKEN" for row in wrong)
        chosen += all(found.backend != "backend-0" for found in choose(gather(bad)[0]))

        def pool(costs: dict[str, float], rng: Any = rng, batch: int = 1, **fields: Any) -> list[Any]:
            drawn = noise.draw(rng, "launch0.5", len(costs), 3)
            works = noise.problem(batch=batch)
            return [
                noise.record(name, works, (1e6 * cost * np.exp(drawn[place])).tolist(), **fields)
                for place, (name, cost) in enumerate(costs.items())
            ]

        old = pool({"cpu": 1.3, "sdpa-cpu": 1.0}, run="1", commit="b" * 40)
        both = [*old, *pool({"cpu": 0.94, "sdpa-cpu": 1.0}, run="2")]
        newest += choose(gather(both)[0])[0].backend == "cpu"
        if draw < 20:
            path = noise.write(Path(tempfile.mkdtemp(prefix="verdicts")) / "both.jsonl", both)
            agrees += "run cpu in 1 of 1" in report.markdown(report.read([path])).split("## Verdict")[1]
        apart = [*pool({"a": 1.0, "b": 1.3}), *pool({"a": 1.3, "b": 1.0}, batch=8)]
        batches += [found.backend for found in choose(gather(apart)[0])] == ["a", "b"]
    yield Row("one of two labels wrong from launch 2 on", "compare says BROKEN, exit 1", broken / draws, at_least=1.0)
    yield Row("one of two labels wrong from launch 2 on", "choose takes another", chosen / draws, at_least=1.0)
    yield Row("an older commit in the file", "choose takes the newest's best", newest / draws, at_least=1.0)
    yield Row("an older commit in the file", "report says the same", agrees / min(draws, 20), at_least=1.0)
    yield Row("batch 1 prefers a, batch 8 b, by 30 %", "choose takes each", batches / draws, at_least=1.0)


def intervals(draws: int) -> Iterator[Row]:
    """How often the 95 % interval of run and the 90 % one of choose miss what they speak of."""
    from rls_bench.choose import gather
    from rls_bench.records.latency import Latencies

    for law in [law for law in noise.STEADY if law not in ("quant", "onewild")]:
        truth = noise.centre(law)
        for launches in (3, 6):
            rng = np.random.default_rng(5)
            # Of a drift the run speaks of its own mean.
            wanted = 0.01 * launches / 2 if law == "drift" else truth
            missed = ratios = 0.0
            # Where a launch moves all cells, those of a suite miss together, and tell as much as one.
            rounds = max(draws * 3 if law == "common" else draws // 10, 8)
            for _ in range(rounds):
                records = noise.suite(rng, law, launches)
                latencies = Latencies(records)
                for each in records:
                    cell = (each.problem.key_length // 64 - 1) * 4 + int(each.backend[-1])
                    reach = latencies.interval(each, "warm")
                    offset = wanted + math.log(1e6 * (1 + cell))
                    assert reach is not None
                    missed += not math.log(reach.low) <= offset <= math.log(reach.high)
                missed_here = []
                for cell in gather(records)[0].cells:
                    first, *others = sorted(cell.candidates.items())
                    at = cell.problem.key_length // 64 - 1
                    for name, other in others:
                        over = other.latency.over(first[1].latency)
                        true = math.log((1 + 4 * at + int(name[-1])) / (1 + 4 * at + int(first[0][-1])))
                        missed_here.append(not abs(over.mean - true) <= over.reach(0.90))
                ratios += np.mean(missed_here) / rounds
            name = f"{law}, {launches} launches"
            yield Row(name, "run: 95 % intervals that miss", missed / (rounds * len(records)), 0.07)
            yield Row(name, "choose: 90 % ratios that miss", float(ratios), 0.13)
    judge = _sides()
    for name, options, count in (
        ("launch3, 3 launches, twins that share them", {"twins": "shared"}, 1),
        ("launch1, 3 runs of 3 launches", {"twins": ""}, 3),
        ("cellshift, 3 runs of 3 launches", {"twins": ""}, 3),
        ("runshift, 3 runs of 3 launches", {"twins": ""}, 3),
    ):
        rng = np.random.default_rng(6)
        missed = 0.0
        for _ in range(draws):
            sides = [
                [
                    each
                    for run in range(count)
                    for each in noise.suite(rng, name.split(",")[0], 3, run=str(run), **options)  # type: ignore[arg-type]
                ]
                for _ in range(2)
            ]
            rows = [row for row in judge(*sides).rows if options["twins"] != "shared" or row.backend == "backend-0"]
            missed += np.mean([row.low is not None and not row.low <= 1 <= row.high for row in rows]) / draws
        yield Row(name, "compare: 90 % intervals without 1", float(missed), 0.13)
    for scatter in (0.004, 0.01, 0.02):
        yield from _stopping(draws, scatter)


def _stopping(draws: int, scatter: float) -> Iterator[Row]:
    """Runs that stop once a cell is within 1 %, and look after each launch from the third to the twelfth."""
    from rls_bench.records.statistics import estimates, log_medians, looked
    from rls_bench.runner import journal
    from rls_bench.runner.cell import Cell, looks, narrow

    rng = np.random.default_rng(7)
    missed = stopped = missed_stopped = total = used = 0.0
    for _ in range(max(draws // 4, 8)):
        cells = [Cell(str(place), "a", 0, noise.problem(), ("warm",)) for place in range(12)]
        going = list(cells)
        for launch in range(1, 13):
            for cell in going:
                taken = np.exp(scatter * rng.standard_normal() + 0.003 * rng.standard_normal(6))
                cell.apply(journal.Took(cell.label, 0, launch, "warm", taken.tolist()))
            if launch >= 3:
                going = [cell for cell in going if cell not in narrow(cells, 0.01, 3)]
        found = estimates({cell: log_medians(cell.launches("warm")) for cell in cells})
        for cell, latency in found.items():
            count = len(cell.launches("warm"))
            has_stopped = cell not in going
            miss = not abs(latency.mean) <= latency.reach(looked(0.95, looks(count, 3)) if has_stopped else 0.95)
            missed, total, used = missed + miss, total + 1, used + count
            stopped, missed_stopped = stopped + has_stopped, missed_stopped + (miss and has_stopped)
    name = f"launches scatter by {scatter:.1%}, stop at ± 1 %"
    yield Row(name, "run: 95 % intervals that miss", missed / total, 0.07)
    yield Row(name, "those that stopped: miss", missed_stopped / max(stopped, 1), 0.07)
    yield Row(name, "cells that stopped", stopped / total)


def alike(draws: int) -> Iterator[Row]:
    """Five backends that cost the same: is one named without a tie; does the floor hold; do winners flip."""
    from rls_bench.choose import choose, gather
    from rls_bench.cli import tables
    from rls_bench.records.flips import flips
    from rls_bench.records.statistics import log_medians, noise_floor

    for law in ("launch1", "launch3", "launch5"):
        rng = np.random.default_rng(8)
        alone = sure = exceeded = flipped = kept = 0.0
        for _ in range(draws):
            drawn = 1e6 * np.exp(noise.draw(rng, law, 12, 3))
            floor = noise_floor([(drawn[5 + place].tolist(), drawn[6].tolist()) for place in (0,)]) or 0.0
            group = [noise.record(f"k{place}", noise.problem(), drawn[place].tolist()) for place in range(5)]
            alone += "not to be told" not in tables.verdict(group)
            (found,) = choose(gather(group)[0])
            kept += found.backend is not None
            sure += found.backend is not None and not found.tied
            pairs = 1e6 * np.exp(noise.draw(rng, law, 14, 3))
            floor = noise_floor([(pairs[2 * at].tolist(), pairs[2 * at + 1].tolist()) for at in range(6)]) or 0.0
            one, twin = (np.mean(log_medians(pairs[12 + side].tolist())) for side in range(2))
            exceeded += not abs(math.expm1(one - twin)) <= floor
        for _ in range(max(draws // 2, 8)):
            both = 1e6 * np.exp(noise.draw(rng, law, 140, 3))
            records = [
                noise.record(
                    f"k{place % 5}",
                    noise.problem(64 * (1 + place // 5)),
                    None,
                    samples_ns={"warm": both[place].tolist(), "cold": both[70 + place].tolist()},
                )
                for place in range(70)
            ]
            flipped += bool(flips(records)) / max(draws // 2, 8)
        yield Row(f"five alike, {law}", "run names one without a tie", alone / draws, 0.05)
        yield Row(f"five alike, {law}", "choose names one without a tie", sure / max(kept, 1), 0.05)
        yield Row(f"noise floor of six problems, {law}", "the same code exceeds it", exceeded / draws, 0.07)
        yield Row(f"five alike warm and cold, 14 problems, {law}", "runs that tell a flip", flipped, 0.05)


def racing(draws: int) -> Iterator[Row]:
    """Turns that a neighbour disturbs: is the best one raced out, and is a raced one named?"""
    from rls_bench.cli import tables
    from rls_bench.runner import journal
    from rls_bench.runner.cell import Cell, race

    costs = {"best": 1.0, "b": 1.05, "c": 1.10, "d": 1.2, "e": 2.0}
    for share, bar in ((0.01, 0.001), (0.05, 0.01)):
        rng = np.random.default_rng(9)
        lost = raced = 0
        for _ in range(5 * draws):
            cells = {name: Cell(name, name, 0, noise.problem(), ("warm",)) for name in costs}
            for launch in (1, 2, 3):
                level = {name: math.log(cost) + 0.005 * rng.standard_normal() for name, cost in costs.items()}
                for turn in range(12):
                    due = [cell for cell in cells.values() if cell.wants("warm", launch, 0.01, turn == 11)]
                    for cell in due:
                        disturbed = math.log(2) * (rng.random() < share)
                        taken = 1e6 * np.exp(level[cell.label] + disturbed + 0.01 * rng.standard_normal(5))
                        cell.apply(journal.Took(cell.label, 0, launch, "warm", taken.tolist()))
                    race(cells.values(), launch)
                    if not due:
                        break
            lost += cells["best"].raced
            raced += cells["e"].raced
        name = f"{share:.0%} of turns disturbed × 2"
        yield Row(name, "the best is raced out", lost / (5 * draws), bar)
        yield Row(name, "one of twice its cost is", raced / (5 * draws))
    rng = np.random.default_rng(10)
    named = 0
    for _ in range(draws):
        gap = rng.random() < 0.25
        best = noise.record("best", noise.problem(), [[1e6] * 5, [1e6] * 5, [8e6] * 5])
        last = [1.8e6 if gap else 14.4e6]
        rival = noise.record("rival", noise.problem(), [[1.8e6] * 5, [1.8e6], last], stopped="raced")
        named += "backend is rival" in tables.verdict([best, rival])
    yield Row("a raced rival's one sample meets a gap in a slow launch", "it is named fastest", named / draws, 0.0)


def policy(draws: int) -> Iterator[Row]:
    """a + b L + c L² for three backends, measured at four lengths and asked at sixty between."""
    from rls_bench.choose import as_policy, choose, gather
    from rls_bench.policy.stretches import stretches

    lengths = (128, 512, 2048, 8192)
    between = [int(at) for at in np.unique(np.geomspace(128, 8192, 60).astype(int)) if at not in lengths]
    names = ("sdpa-cpu", "sdpa-math", "eager")
    regrets, beyond = [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        factors = [rng.uniform(*span, 3) for span in ((1e4, 4e5), (30, 120), (0.003, 0.02))]
        costs = {
            name: lambda at, a=a, b=b, c=c: a + b * at + c * at * at
            for name, a, b, c in zip(names, *factors, strict=True)
        }
        drawn = iter(noise.draw(rng, "launch0.5", len(names) * len(lengths), 3))
        records = [
            noise.record(name, noise.problem(at), (costs[name](at) * np.exp(next(drawn))).tolist(), noise_floor=0.004)
            for at in lengths
            for name in names
        ]
        evidence = gather(records)[0]
        rules = as_policy(evidence, choose(evidence), "latency", Path("policy.json")).rules
        from rls_bench.policy.file import point

        known = stretches(rules, point(noise.problem()), is_square=True)
        bound = max(rule.regret_bound or 0.0 for rule in rules)
        for at in between:
            advice = known.at(at)
            if advice and advice.backends:
                found = {name: cost(at) for name, cost in costs.items()}
                regrets.append(found[advice.backends[0]] / min(found.values()) - 1)
                beyond.append(not regrets[-1] <= bound)
    name = "between four measured lengths"
    yield Row(name, "regret of auto, mean", float(np.mean(regrets)))
    yield Row(name, "regret of auto, 99th percentile", float(np.quantile(regrets, 0.99)), 0.01)
    yield Row(name, "regret of auto, worst", max(regrets), 0.10)
    yield Row(name, "regrets above 'at most'", float(np.mean(beyond)), 0.05)


# Of a run of two commits, at most.
_LAUNCHES = 30


def ab(draws: int) -> Iterator[Row]:
    """Two commits at once: launches share 2 %, the machine slows by 1 % a launch, cells have moved.

    Processes scatter by 0.5 %; or by 1 %, and in one launch of six a neighbour slows either side by up to half.
    """
    for title, scatter, disturbed, factor, all_factor in (
        ("same code", 0.005, 0.0, 1.0, 1.0),
        ("3.5 %", 0.005, 0.0, 1.035, 1.0),
        ("all cells 2 %", 0.005, 0.0, 1.0, 1.02),
        ("same code, neighbours", 0.01, 1 / 6, 1.0, 1.0),
        ("5 %, neighbours", 0.01, 1 / 6, 1.05, 1.0),
    ):
        rng = np.random.default_rng(11)
        alarms = found = called = launches = 0.0
        change = np.full(noise.CELLS, math.log(all_factor))
        change[PLANTED] += math.log(factor)
        for _ in range(draws):
            settled, taken = _trial(rng, scatter, disturbed, change)
            moved = {cell for cell, verdict in settled.items() if verdict in ("SLOWER", "FASTER")}
            alarms += bool(moved - ({PLANTED} if factor > 1 else set()))
            found += settled.get(PLANTED) == "SLOWER"
            called, launches = called + len(settled) / noise.CELLS, launches + taken
        name = f"ab, threshold 2 %, {title}"
        if factor > 1:
            # By medians, untrimmed, and with all looks alike: 0 of 15 where neighbours disturb.
            yield Row(name, "found", found / draws, at_least=0.95)
        yield Row(name, "runs with another SLOWER or FASTER", alarms / draws, 0.01 if all_factor == 1 else 0.05)
        yield Row(name, "cells with a verdict", called / draws)
        yield Row(name, "launches, of thirty at most", launches / draws / _LAUNCHES)


def _trial(
    rng: np.random.Generator, scatter: float, disturbed: float, change: NDArray[np.float64]
) -> tuple[dict[int, str], int]:
    """The verdicts of one run, and how many launches it took; ``change`` are log factors, [cells]."""
    from rls_bench.ab.judging import FEWEST_LAUNCHES, Looks

    # A cell's place in memory, the run's own day: both sides share them.
    usual = 0.015 * rng.standard_normal() + 0.015 * rng.standard_normal(noise.CELLS)
    pairs: dict[int, list[float]] = {cell: [] for cell in range(noise.CELLS)}
    looks: Looks[int] = Looks(0.02)
    open_cells = list(pairs)
    for launch in range(1, _LAUNCHES + 1):
        shared = usual + 0.02 * rng.standard_normal(noise.CELLS) + 0.01 * launch
        sides = [shared + scatter * rng.standard_normal(noise.CELLS) for _ in range(2)]
        sides[1] += change
        for side in sides if disturbed else []:
            side += (rng.random(noise.CELLS) < disturbed / 2) * math.log(1.5) * rng.random(noise.CELLS)
        for cell in open_cells:
            pairs[cell].append(sides[1][cell] - sides[0][cell])
        if launch >= FEWEST_LAUNCHES and looks.is_due(launch / _LAUNCHES):
            looks.look(pairs, launch / _LAUNCHES)
            open_cells = [cell for cell, found in looks.found.items() if not found.is_settled]
        if launch >= FEWEST_LAUNCHES and not open_cells:
            break
    return {cell: found.verdict for cell, found in looks.found.items() if found.is_settled}, launch


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "same code": same_code,
    "astray": astray,
    "standing": standing,
    "intervals": intervals,
    "alike": alike,
    "racing": racing,
    "policy": policy,
    "ab": ab,
}


def main(arguments: list[str]) -> None:
    """Print every row; exit code 1 where a bar isn't met."""
    draws = int(arguments[0]) if arguments else 25
    began, failed = time.monotonic(), 0
    for part, rows in PARTS.items():
        if arguments[1:] and part not in arguments[1:]:
            continue
        for row in rows(draws):
            failed += not row.is_met
            sign = "" if not row.bar else "  met" if row.is_met else "  NOT MET"
            print(f"{row.scenario:56} {row.what:42} {100 * row.found:7.2f} %  {row.bar:8}{sign}", flush=True)
    print(f"{draws} draws, {time.monotonic() - began:.0f} s, {failed} bars not met")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(sys.argv[1:])

"""One backend for a set of problems: the least regret, ties broken, and abstention where the evidence is too thin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rls_bench.choose.evidence import Candidate, Cell, Objective
from rls_bench.choose.pareto import Standing, standings
from rls_bench.policy import file as policy_file
from rls_bench.records.statistics import Estimate

# A difference up to this is none, even where the noise floor is lower.
TIE = 0.01
# The choice may turn out so much slower than another, at 95 % confidence, before the evidence is called too thin.
MOST_REGRET = 0.10
FEWEST_LAUNCHES = 3
MOST_LAUNCHES = 50
# Beyond this ratio no interval is needed to know who is ahead; racing stops there, too.
FAR = 1.5
# The last tie-break: what torch ships before what is compiled, and what is compiled before what is ours.
SIMPLEST = (
    "sdpa-cpu",
    "sdpa-cudnn",
    "sdpa-efficient",
    "sdpa-math",
    "eager",
    "keyfold",
    "valuefold",
    "flex",
    "cpu",
    "triton",
)


@dataclass(frozen=True)
class Decision:
    """The choice for ``cells``; ``backend`` is None where the evidence is too thin, and ``settle`` would thicken it.

    Relative figures: ``margin`` is how much more the next one costs (None without one), ``regret`` what the choice
    costs above the best of each problem, on average by the cells' weights, ``worst_regret`` on the worst problem, and
    ``regret_bound`` what that may be at 95 % confidence. ``order`` ranks all that could have been chosen, the choice
    first.
    """

    cells: tuple[Cell, ...]
    backend: str | None
    why: str
    settle: str = ""
    order: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    margin: float | None = None
    regret: float | None = None
    worst_regret: float | None = None
    regret_bound: float | None = None
    standings: tuple[Standing, ...] = field(default_factory=tuple)
    # Batch and heads, where those of one length want backends of their own.
    shape: str = ""

    @property
    def regime(self) -> str:
        """``prefill bfloat16 causal D64``."""
        problem = self.cells[0].problem
        dims = f"D{problem.head_dim}" + (f"/{problem.value_dim}" if problem.value_dim != problem.head_dim else "")
        return " ".join(filter(None, (policy_file.kind(problem).title, dims, self.shape)))

    @property
    def lengths(self) -> str:
        """The key lengths decided for: ``1024-4096``, or one of them."""
        lengths = [cell.problem.key_length for cell in self.cells]
        return str(lengths[0]) if min(lengths) == max(lengths) else f"{min(lengths)}-{max(lengths)}"


def decide(cells: Sequence[Cell], objective: Objective = "latency", suite: str = "") -> Decision:
    """The decision for ``cells`` taken as one regime; ``suite`` is named in the command that would settle it."""
    weighed = weigh(cells, objective)
    if weighed.backend is None:
        return _nobody(cells, objective, suite)
    return _judge(replace(weighed, standings=standings(cells, weighed.order)), objective, suite)


def weigh(cells: Sequence[Cell], objective: Objective = "latency") -> Decision:
    """Whom the figures favour, however thin the evidence; it says neither why nor how sure that is."""
    costs = {name: known for name in _common(cells) if (known := _costs(cells, name, objective)) is not None}
    if not costs:
        return Decision(tuple(cells), None, "")
    # Of each problem, the least cost among all that may be chosen for it, common to the others or not.
    found = [[cost_of(other, objective) for other in _racers(cell).values()] for cell in cells]
    least = [min(cost for cost in known if cost is not None) for known in found]
    regrets = {
        name: [math.log(cost / best) for cost, best in zip(known, least, strict=True)] for name, known in costs.items()
    }
    mean = {name: _mean(known, cells) for name, known in regrets.items()}
    best = min(regrets, key=lambda name: (mean[name], name))
    tied = [name for name in regrets if name == best or _ties(cells, name, best, regrets, objective)]
    # Who has launches enough goes first: a tie with one that hasn't settles nothing.
    chosen = min(tied, key=lambda name: (_fewest_launches(cells, name) < FEWEST_LAUNCHES, _tie_break(cells, name)))
    others = sorted((name for name in regrets if name != chosen), key=lambda name: mean[name])
    return Decision(
        cells=tuple(cells),
        backend=chosen,
        why="",
        order=(chosen, *others),
        tied=tuple(name for name in others if name in tied),
        margin=math.expm1(mean[others[0]] - mean[chosen]) if others else None,
        regret=math.expm1(mean[chosen]),
        worst_regret=math.expm1(max(regrets[chosen])),
    )


def _judge(found: Decision, objective: Objective, suite: str) -> Decision:
    """``found`` with its reason and how sure it is, or abstaining."""
    chosen = found.order[0]
    bound, rival = _regret_bound(found.cells, chosen, objective)
    tie = _tie(found.cells)
    if bound is not None and found.tied and tie > bound:
        # Nothing tells those apart that lie within the noise.
        bound, rival = tie, found.tied[0]
    found = replace(found, regret_bound=bound)
    fewest = _fewest_launches(found.cells, chosen)
    if fewest < FEWEST_LAUNCHES:
        why = f"{chosen} was measured in {fewest} launches; wanted at least {FEWEST_LAUNCHES}"
        return replace(found, backend=None, why=why, settle=_command(suite, found.order[:2], FEWEST_LAUNCHES))
    if objective == "latency" and bound == math.inf:
        why = f"how far {rival} scatters is not known: it has too few launches, or too coarse a clock"
        return replace(found, backend=None, why=why, settle=_command(suite, (chosen, rival), FEWEST_LAUNCHES))
    certain, other, where = _certain_regret(found.cells, chosen)
    if objective == "latency" and certain > MOST_REGRET:
        why = f"{chosen} is {certain:.0%} slower than {other} on {where}, for certain, and no other does better in all"
        return replace(found, backend=None, why=why, settle="no launches do: name a backend for each problem")
    if objective == "latency" and found.regret_bound is not None and not found.regret_bound <= MOST_REGRET:
        why = f"{chosen} may be up to {found.regret_bound:.0%} slower than {rival}, for all that was measured"
        # The interval shrinks with the root of the launches.
        wanted = math.ceil(fewest * (found.regret_bound / MOST_REGRET) ** 2) + 1
        command = _command(suite, (chosen, rival), min(max(wanted, fewest + 2), MOST_LAUNCHES))
        return replace(found, backend=None, why=why, settle=command)
    return replace(found, why=_reason(found, objective))


def _reason(found: Decision, objective: Objective) -> str:
    least = {"latency": "fastest", "energy": "fewest joules", "error": "least error"}[objective]
    if found.tied:
        return f"{least} that agrees, tied with {', '.join(found.tied)}; less to compile, less memory or simpler"
    if found.margin is None:
        raced = sorted({name for cell in found.cells for name, other in cell.candidates.items() if other.raced})
        if behind := [name for name in raced if name != found.order[0]]:
            return f"{least} that agrees; {', '.join(behind)} over {FAR:g} × as slow, beyond doubt"
        return "the only one that agrees"
    return f"{least} that agrees; {found.order[1]} costs {found.margin:.1%} more"


def _nobody(cells: Sequence[Cell], objective: Objective, suite: str) -> Decision:
    refused = {name: reason for cell in cells for name, reason in cell.refused.items()}
    if _common(cells):
        need = {"energy": "joules: add --probe nvml on a GPU", "error": "errors", "latency": "latency"}[objective]
        return Decision(tuple(cells), None, f"no {need}", settle=_command(suite, (), FEWEST_LAUNCHES))
    reasons = (
        "; ".join(f"{name} {reason}" for name, reason in sorted(refused.items())) or "none was measured on all problems"
    )
    return Decision(
        tuple(cells), None, f"no backend can be chosen: {reasons}", settle=_command(suite, (), FEWEST_LAUNCHES)
    )


def _command(suite: str, backends: Sequence[str], launches: int) -> str:
    words = ["rls-bench run"] + problem_words(suite) + [f"--backend {name}" for name in backends]
    return " ".join([*words, f"--launches {launches}"])


def problem_words(suite: str) -> list[str]:
    """The words that ask ``run`` for the problems of a record again: its suite, or the options that it was run with."""
    return [suite if suite.startswith("--") else f"--suite {suite}"] if suite else []


def _common(cells: Sequence[Cell]) -> list[str]:
    """Backends that may be chosen for every one of the cells."""
    shared = set.intersection(*(set(_racers(cell)) for cell in cells))
    return sorted(shared)


def _costs(cells: Sequence[Cell], name: str, objective: Objective) -> list[float] | None:
    found = [cost_of(cell.candidates[name], objective) for cell in cells]
    known = [cost for cost in found if cost is not None]
    return known if len(known) == len(found) else None


def cost_of(candidate: Candidate, objective: Objective) -> float | None:
    """What the objective counts of ``candidate``; None where it isn't known."""
    costs = {"latency": candidate.latency_ns, "energy": candidate.joules, "error": candidate.error}
    cost = costs[objective]
    if cost is None or not math.isfinite(cost):
        return None
    # An error of exactly nothing still needs a logarithm.
    return cost if objective == "latency" else max(cost, 1e-12)


def _tie(cells: Sequence[Cell]) -> float:
    """The relative difference that is none."""
    return max(TIE, *(cell.noise_floor for cell in cells))


def _ties(
    cells: Sequence[Cell], name: str, best: str, regrets: Mapping[str, Sequence[float]], objective: Objective
) -> bool:
    """Whether ``name`` cannot be told from ``best``: over all cells together, nor as clearly slower on any of them."""
    tie = math.log1p(_tie(cells))
    if max(one - other for one, other in zip(regrets[name], regrets[best], strict=True)) <= tie:
        return True
    if objective != "latency":
        return False
    ratios = [cell.candidates[name].latency.over(cell.candidates[best].latency) for cell in cells]
    return together(ratios, cells).interval().low <= 1 and all(
        ratio.interval().low <= math.exp(tie) for ratio in ratios
    )


def together(ratios: Sequence[Estimate], cells: Sequence[Cell]) -> Estimate:
    """The mean of log ratios, one a cell, each counting by the cell's weight."""
    shares = _shares(cells)
    variances = [share**2 * ratio.variance for share, ratio in zip(shares, ratios, strict=True)]
    mean, blur = _mean([ratio.mean for ratio in ratios], cells), _mean([ratio.blur for ratio in ratios], cells)
    total = math.fsum(variances)
    if not 0 < total < math.inf:
        return Estimate(mean, total, 1.0, blur)
    parts = zip(variances, ratios, strict=True)
    return Estimate(mean, total, total**2 / math.fsum(part**2 / ratio.freedom for part, ratio in parts), blur)


def _fewest_launches(cells: Sequence[Cell], name: str) -> int:
    return min(cell.candidates[name].launches for cell in cells)


def _mean(values: Sequence[float], cells: Sequence[Cell]) -> float:
    return math.fsum(share * value for share, value in zip(_shares(cells), values, strict=True))


def _shares(cells: Sequence[Cell]) -> list[float]:
    """How much each cell counts, of 1 in all."""
    every = math.fsum(cell.weight for cell in cells)
    return [cell.weight / every if every else 1 / len(cells) for cell in cells]


def _tie_break(cells: Sequence[Cell], name: str) -> tuple[float, float, int, str]:
    """Less compile time to a tenth of a second, less memory to a MiB, simpler; what is unknown comes last."""
    compile_seconds = [cell.candidates[name].compile_seconds for cell in cells]
    peak_bytes = [cell.candidates[name].peak_bytes for cell in cells]
    slowest = max(math.inf if seconds is None else round(seconds, 1) for seconds in compile_seconds)
    largest = max(math.inf if size is None else round(size / 2**20) for size in peak_bytes)
    return slowest, largest, SIMPLEST.index(name) if name in SIMPLEST else len(SIMPLEST), name


def _regret_bound(cells: Sequence[Cell], chosen: str, objective: Objective) -> tuple[float | None, str]:
    """How much slower than some rival the choice may be on some problem, at 95 % confidence, and which rival."""
    if objective != "latency":
        return None, ""
    bound, rival = 0.0, ""
    for cell in cells:
        for name, ratio in _over_rivals(cell, chosen):
            # Two one-sided sides of 5 % make an interval of 90 %; only its upper end matters here.
            high = ratio.interval(0.90).high - 1
            if math.isnan(high):
                # Nothing is known of how they compare.
                return math.inf, name
            if high > bound:
                bound, rival = high, name
    return bound, rival


def _certain_regret(cells: Sequence[Cell], chosen: str) -> tuple[float, str, str]:
    """How much slower the choice is on some problem whatever the luck, than which rival, and on which problem."""
    found = [
        (ratio.interval(0.99).low - 1, name, cell.problem.title)
        for cell in cells
        for name, ratio in _over_rivals(cell, chosen)
    ]
    return max(found, default=(0.0, "", ""))


def is_certainly_slower(cell: Cell, chosen: str) -> bool:
    """Whether some rival beats ``chosen`` on ``cell``, at 99 % confidence."""
    return any(ratio.interval(0.99).low > 1 for _, ratio in _over_rivals(cell, chosen))


def _over_rivals(cell: Cell, chosen: str) -> Iterator[tuple[str, Estimate]]:
    """The choice's latency over that of each rival that is not far behind for all to see."""
    own = cell.candidates[chosen]
    for name, other in _racers(cell).items():
        # A latency that is no number is not far behind.
        if name != chosen and not other.latency_ns > FAR * own.latency_ns:
            yield name, own.latency.over(other.latency)


def _racers(cell: Cell) -> dict[str, Candidate]:
    """Who may win: all that weren't raced out, or all where nobody else is left."""
    return {name: one for name, one in cell.candidates.items() if not one.raced} or cell.candidates

"""Which solver, with which steps, for how many evaluations: measured against the end points of the ODE."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number
from diffspace.config import from_text, to_text
from diffspace.notebook import Shown
from diffspace.parts import find, kinds
from diffspace.protocols import Denoiser, sigma_range
from diffspace.sampling import Execution, Sampler, sample
from diffspace.sampling.driver import make_grid
from diffspace.solverlab.end_points import EndPointError, Reference, error_from, mean_squares

BUDGETS = (5, 8, 10, 15, 20, 35, 50)
"""Evaluations of the denoiser at which solvers are compared by default."""

STEP_FAMILIES = ("edm", "loglinear", "edm:sigma_min={low}", "loglinear:sigma_min={low}", "loglinear:sigma_min={twice}")
"""The steps that every solver is tried with by default, as `config.from_text` reads them; {low} is σ_data/25."""

_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "ab": tuple(
        f"k={k}{of}"
        for of in ("", ",prediction=x0", ",prediction=v,variable=angle,sigma_data={sigma_data:g}")
        for k in (3, 4)
    ),
    "ipndm": ("k=3", "k=4"),
    "unipc": ("k=2", "k=2,variant=bh1", "k=3"),
    "afs": tuple(
        f"solver=({solver}),sigma_data={{sigma_data:g}},mean={{mean:g}}"
        for solver in ("ab:k=3", "ab:k=4", "ab:k=3,prediction=x0", "ipndm:k=4")
    ),
}
"""Options of solvers that are a family; a solver without an entry is tried with its defaults."""


def steps_name(sampler: Sampler) -> str:
    """The steps in one word, without N; their class where that would be long or they have no name."""
    try:
        text = to_text("steps", sampler.steps, omit=("num_steps",))
    except ValueError:
        return type(sampler.steps).__name__
    return text if len(text) <= 40 else text.partition(":")[0]


def within_budget(sampler: Sampler, budget: int) -> Sampler | None:
    """The sampler with the largest N that costs at most `budget` evaluations; None where there is none."""
    least = sampler if sampler.fixed else sampler.with_num_steps(1)
    cost, inner = least.nfe, sampler.solver.evaluations(False)
    if cost is None or inner is None or cost > budget:
        return None
    return least if sampler.fixed else sampler.with_num_steps(1 + (budget - cost) // inner)


@dataclass(frozen=True, eq=False)
class Measurement:
    """A sampler at a budget: its name, the evaluations that it took, and its distance from the end points.

    `squares` holds the mean square of each sample's error, `last_sigma` is the level of the last evaluation. Where a
    run failed, `failure` is the message, and the errors are infinite.
    """

    name: str
    sampler: Sampler
    budget: int
    nfe: int
    error: EndPointError
    squares: Float[Tensor, "batch"] = field(repr=False)
    failure: str = ""
    last_sigma: float = 0.0

    @property
    def num_steps(self) -> int:
        return self.sampler.steps.num_steps

    @property
    def solver(self) -> str:
        """The name, without the steps where it ends in them."""
        return self.name.removesuffix(f", {self.steps}")

    @property
    def steps(self) -> str:
        """The steps in one word."""
        return steps_name(self.sampler)

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON: errors that are not finite are None."""
        figures = {name: getattr(self, name) for name in ("solver", "steps", "budget", "num_steps", "nfe")}
        finite = {name: value if math.isfinite(value) else None for name, value in self.error._asdict().items()}
        return figures | finite | ({"failure": self.failure} if self.failure else {})


@dataclass(frozen=True, eq=False)
class SolverComparison(Shown):
    """Every sampler at every budget, and the error of the end points that they were measured against."""

    rows: tuple[Measurement, ...]
    budgets: tuple[int, ...]
    samples: int
    reference_error: EndPointError
    reference_nfe: int
    excluded: tuple[str, ...] = ()
    scale: float = 1.0
    """The standard deviation of the end points."""

    def within(self, budget: int) -> list[Measurement]:
        """The measurements that did not fail and took at most `budget` evaluations, the least RMS first."""
        rows = [row for row in self.rows if row.nfe <= budget and math.isfinite(row.error.rms)]
        return sorted(rows, key=lambda row: (row.error.rms, row.nfe))

    def as_dict(self) -> dict[str, Any]:
        """Everything but the errors of single samples, for JSON."""
        return {
            "samples": self.samples,
            "budgets": list(self.budgets),
            "reference": {"nfe": self.reference_nfe, **self.reference_error._asdict()},
            "rows": [row.as_dict() for row in self.rows],
            "excluded": list(self.excluded),
        }


class Recommendation(NamedTuple):
    """The sampler to use at a budget, and why."""

    budget: int
    row: Measurement
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The measurement with the reason, for JSON; its "budget" is this one."""
        return {**self.row.as_dict(), "budget": self.budget, "reason": self.reason}


class PlannedRun(NamedTuple):
    """One run of a sampler, and the budgets that it answers for."""

    name: str
    sampler: Sampler
    nfe: int
    budgets: tuple[int, ...]


class Plan(NamedTuple):
    """The runs of a comparison, and which samplers are not in it, with the reason."""

    runs: tuple[PlannedRun, ...]
    excluded: tuple[str, ...]

    @property
    def nfe(self) -> int:
        """Evaluations of all runs together."""
        return sum(run.nfe for run in self.runs)


def default_samplers(
    sigma_data: float,
    mean: float = 0.0,
    solvers: Iterable[str] | None = None,
    steps: Iterable[str] = STEP_FAMILIES,
    *,
    sigma_min: float = 0.0,
) -> dict[str, Sampler]:
    """Every solver with every family of steps, in the words of `config.from_text`, by "solver, steps".

    `sigma_data` and `mean` are of the data, for the solvers that have them as options; `sigma_min` is the lowest level
    of the model, below which no steps are placed. The default is all registered solvers that need no option, some with
    several.
    """
    if solvers is None:
        solvers = [
            ":".join(filter(None, (kind, options.format(sigma_data=sigma_data, mean=mean))))
            for kind in kinds("solver")
            if all(p.default is not p.empty for p in inspect.signature(find("solver", kind)).parameters.values())
            for options in _VARIANTS.get(kind, ("",))
        ]
    wanted = (f"{sigma_data / 25:g}", f"{sigma_data / 12.5:g}")
    low, twice = (level if float(level) >= sigma_min else repr(sigma_min) for level in wanted)
    words = dict.fromkeys(word.replace("{low}", low).replace("{twice}", twice) for word in steps)
    families = [from_text("steps", word) for word in words]
    samplers: dict[str, Sampler] = {}
    for word in solvers:
        solver = from_text("solver", word)
        for family in families:
            sampler = Sampler(family, solver)
            name = f"{word}, {steps_name(sampler)}"
            if name in samplers:
                raise ValueError(f"solvers, steps: {name} is given twice")
            samplers[name] = sampler
    return samplers


def plan_runs(samplers: Mapping[str, Sampler], budgets: Sequence[int] = BUDGETS) -> Plan:
    """For each sampler and budget the largest N that costs no more evaluations than the budget, each run once.

    Samplers that add noise are left out, since they do not end where the ODE does, and those whose tolerance decides
    how many evaluations they take. Levels that are given are the same at every budget.
    """
    if not budgets or min(budgets) < 1:
        raise ValueError(f"budgets: expected numbers of evaluations, each at least 1, got {tuple(budgets)}")
    runs: list[PlannedRun] = []
    excluded: dict[str, dict[str, None]] = {}  # by reason; names in order, each once
    for name, sampler in samplers.items():
        answers: dict[int, list[int]] = {}  # by N
        if sampler.adds_noise:
            reason = "noise is added, so that the end points are not those of the ODE"
        elif sampler.nfe is None:
            reason = "a tolerance decides how many evaluations are made, not a budget"
        else:
            reason = "costs more than any budget"
            for budget in sorted(set(budgets)):
                if (largest := within_budget(sampler, budget)) is not None:
                    answers.setdefault(largest.steps.num_steps, []).append(budget)
        for num_steps, budgets_of in answers.items():
            own = sampler.with_num_steps(num_steps)
            runs.append(PlannedRun(name, own, own.nfe or 0, tuple(budgets_of)))
        if not answers:
            excluded.setdefault(reason, {})[name.removesuffix(f", {steps_name(sampler)}")] = None
    return Plan(tuple(runs), tuple(f"{', '.join(names)}: {reason}" for reason, names in excluded.items()))


def compare_solvers(
    denoiser: Denoiser,
    reference: Reference,
    samplers: Mapping[str, Sampler] | None = None,
    budgets: Sequence[int] = BUDGETS,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SolverComparison:
    """Run every sampler from the latents of `reference` at every budget, and measure where it ends.

    The runs are those of `plan_runs`. One that refuses its input, ends in values that are not finite or does not go
    from the reference's σ_max to 0 is recorded as a failure, and the others go on; other errors end the comparison.

    Args:
        denoiser: D(x, sigma, cond).
        reference: the end points to reach.
        samplers: by name. Default: those of `default_samplers`.
        budgets: numbers of evaluations.
        batch_size, device: as in `Execution`.
        progress: progress(done, total, name) is called before each run with numbers of evaluations.
    """
    if samplers is None:
        samplers = default_samplers(*moments(reference), sigma_min=sigma_range(denoiser)[0])
    plan = plan_runs(samplers, budgets)
    rows, done = [], 0
    for run in plan.runs:
        if progress is not None:
            progress(done, plan.nfe, run.name)
        rows += _measure(denoiser, reference, run, Execution(batch_size, device))
        done += run.nfe
    ordered = tuple(sorted(set(budgets)))
    known = reference.error, reference.nfe
    return SolverComparison(tuple(rows), ordered, len(reference.x), *known, plan.excluded, moments(reference)[0])


def moments(reference: Reference) -> tuple[float, float]:
    """(σ_data, mean) of the end points, over all their elements, to two digits."""
    std, mean = torch.std_mean(reference.x, correction=0)
    return float(f"{float(std):.2g}") or 1.0, float(f"{float(mean):.2g}")


def _measure(denoiser: Denoiser, reference: Reference, run: PlannedRun, execution: Execution) -> list[Measurement]:
    """The measurement of one run, for each budget that it answers for."""
    name, sampler, nfe, budgets = run
    error, failure, last_sigma = EndPointError(math.inf, math.inf), "", 0.0
    squares = torch.full((len(reference.x),), math.inf, dtype=torch.float64, device="cpu")
    try:
        grid = make_grid(denoiser, sampler)
        first, last_sigma, last = grid.sigmas[0], grid.sigmas[-2], grid.sigmas[-1]
        if not math.isclose(first, reference.sigma_max, rel_tol=0.01) or last != 0:
            raise ValueError(f"goes from σ = {first:g} to {last:g}, the reference from {reference.sigma_max:g} to 0")
        samples = sample(denoiser, latents=reference.latents, cond=reference.cond, sampler=sampler, execution=execution)
        found = mean_squares(samples.x.to(reference.x) - reference.x)
        nfe, error, squares = samples.nfe, error_from(found), found.cpu().double()
    except (ValueError, ArithmeticError) as reason:
        failure = str(reason)
    return [Measurement(name, sampler, budget, nfe, error, squares, failure, last_sigma) for budget in budgets]


def pareto(comparison: SolverComparison, *, margin: float = 0.0) -> list[Measurement]:
    """The measurements that no other beats with as few evaluations: by rising NFE, with falling RMS.

    Each is lower than the one before by more than a share `margin` of it.
    """
    check_number("margin", margin, "[0, 1)")
    front: list[Measurement] = []
    for row in sorted(comparison.within(max(comparison.budgets)), key=lambda row: (row.nfe, row.error.rms)):
        if not front or row.error.rms < (1 - margin) * front[-1].error.rms:
            front.append(row)
    return front


def recommend(comparison: SolverComparison, *, margin: float = 0.05) -> list[Recommendation]:
    """One sampler for each budget at which any did not fail.

    Of everything that took no more evaluations, the least RMS. Others tie with it if their RMS is at most `margin` more
    and the mean difference of the squared errors of the same samples is below two of its standard errors. Of those that
    tie, the best over all budgets is taken (by `_generality`), since the least of many was partly lucky; then the one
    with fewer evaluations.
    """
    check_number("margin", margin, "[0, inf)")
    ranked = {budget: rows for budget in comparison.budgets if (rows := comparison.within(budget))}
    general = _generality(comparison.rows, {budget: rows[0].error.rms for budget, rows in ranked.items()})
    chosen = []
    for budget, rows in ranked.items():
        tied = [row for row in rows if row is rows[0] or ties(row, rows[0], margin)]
        row = min(tied, key=lambda row: (-general[row.name], row.nfe))
        chosen.append(Recommendation(budget, row, _reason(row, rows, tied)))
    return chosen


def _generality(rows: Sequence[Measurement], least: Mapping[int, float]) -> dict[str, float]:
    """For each sampler the mean over budgets of the least RMS over its own: 1 where it is the best everywhere."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        own = row.error.rms
        shares.setdefault(row.name, []).append(min(1.0, least.get(row.budget, 0.0) / own) if own > 0 else 1.0)
    return {key: fmean(values) for key, values in shares.items()}


def ties(row: Measurement, best: Measurement, margin: float) -> bool:
    """Whether a measurement differs from the best on the same samples by at most a share of it, and by chance."""
    excess = row.squares - best.squares
    chance = 2 * float(excess.std()) / math.sqrt(len(excess)) if len(excess) > 1 else 0.0
    return row.error.rms <= (1 + margin) * best.error.rms and float(excess.mean()) <= chance


def _reason(row: Measurement, rows: Sequence[Measurement], tied: Sequence[Measurement]) -> str:
    """Why this one: how it compares with the best, and the best with the others."""
    best = rows[0]
    others = {other.name for other in tied} - {row.name}
    if row.error.rms > best.error.rms:
        more = f"{row.error.rms / best.error.rms - 1:.1%} above the least, that of {best.solver}"
        return f"{more} with {best.steps}; within chance, and better over all budgets"
    if others:
        return f"least error, {len(others)} within chance; the best of them over all budgets"
    runner_up = next((other for other in rows if other.name != row.name), None)
    if runner_up is None or row.error.rms == 0:
        return "least error"
    ratio = runner_up.error.rms / row.error.rms
    return "least error; the next has " + (f"{ratio:,.0f} times as much" if ratio >= 3 else f"{ratio - 1:.0%} more")

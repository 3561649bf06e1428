"""Which solver, with which steps, for how many evaluations: measured against the end points of the ODE."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.config import find, from_text, kinds, to_text
from diffspace.protocols import Denoiser, Solver, TimeSteps, sigma_range
from diffspace.sampling import count_evaluations, sample
from diffspace.solverlab.end_points import EndPointError, Reference

__all__ = [
    "BUDGETS",
    "STEP_FAMILIES",
    "Candidate",
    "Measurement",
    "Plan",
    "Recommendation",
    "Run",
    "SolverComparison",
    "compare_solvers",
    "default_candidates",
    "moments",
    "pareto",
    "plan_runs",
    "recommend",
]

BUDGETS = (5, 8, 10, 15, 20, 35, 50)
"""Evaluations of the denoiser at which solvers are compared by default."""

STEP_FAMILIES = ("edm", "loglinear", "edm:sigma_min=0.02", "loglinear:sigma_min=0.02", "loglinear:sigma_min=0.04")
"""The steps that every solver is tried with by default, as `config.from_text` reads them."""

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
"""Options of solvers that are a family; a solver without an entry is tried as it is by default."""


@dataclass(frozen=True)
class Candidate:
    """A solver and its steps under a name. Of steps with a field `num_steps` N is chosen, others stay as they are."""

    name: str
    solver: Solver
    steps: TimeSteps

    @property
    def steps_name(self) -> str:
        """The steps in one word, without N; their class where that would be long or they have no name."""
        try:
            text = to_text("steps", self.steps, omit=("num_steps",))
        except ValueError:
            return type(self.steps).__name__
        return text if len(text) <= 40 else text.partition(":")[0]

    @property
    def is_fixed(self) -> bool:
        """Whether N cannot be chosen."""
        return "num_steps" not in getattr(self.steps, "__dataclass_fields__", ())

    def at(self, num_steps: int) -> TimeSteps:
        """The steps, N of them."""
        if self.is_fixed:
            if num_steps != self.steps.num_steps:
                raise ValueError(f"num_steps: {num_steps}; the steps of {self.name} are {self.steps.num_steps}")
            return self.steps
        changed: Any = self.steps
        steps: TimeSteps = replace(changed, num_steps=num_steps)
        return steps

    def cost(self, num_steps: int) -> int | None:
        """Evaluations that N steps take, the last one to σ = 0; None where a tolerance decides."""
        return count_evaluations(self.solver, num_steps)

    def within(self, budget: int) -> int | None:
        """The largest N that costs at most `budget`; None where there is none."""
        least = self.steps.num_steps if self.is_fixed else 1
        cost, inner = self.cost(least), self.solver.evaluations(False)
        if cost is None or inner is None or cost > budget:
            return None
        return least if self.is_fixed else 1 + (budget - cost) // inner


@dataclass(frozen=True, eq=False)
class Measurement:
    """A candidate at a budget: N and the evaluations that it really took, and how far from the end points it ended.

    `squares` holds the mean square of each sample's error. Where a run failed, `failure` says how, and the errors are
    infinite.
    """

    candidate: Candidate
    budget: int
    num_steps: int
    nfe: int
    error: EndPointError
    squares: Float[Tensor, "batch"] = field(repr=False)
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON: errors that are not finite are None."""
        finite = {name: value if math.isfinite(value) else None for name, value in self.error._asdict().items()}
        return {
            "solver": self.candidate.name,
            "steps": self.candidate.steps_name,
            "budget": self.budget,
            "num_steps": self.num_steps,
            "nfe": self.nfe,
            **finite,
            **({"failure": self.failure} if self.failure else {}),
        }


@dataclass(frozen=True, eq=False)
class SolverComparison:
    """Every candidate at every budget, and how well the end points are known that they were measured against."""

    rows: tuple[Measurement, ...]
    budgets: tuple[int, ...]
    samples: int
    reference_error: EndPointError
    reference_nfe: int
    excluded: tuple[str, ...] = ()

    def within(self, budget: int) -> list[Measurement]:
        """What did not fail and took at most so many evaluations, the least RMS first."""
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


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What to take at a budget, and why."""

    budget: int
    row: Measurement
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The measurement with the reason, for JSON; its "budget" is this one."""
        return {**self.row.as_dict(), "budget": self.budget, "reason": self.reason}


class Run(NamedTuple):
    """One run of a candidate, and the budgets that it answers for."""

    candidate: Candidate
    num_steps: int
    nfe: int
    budgets: tuple[int, ...]


class Plan(NamedTuple):
    """The runs of a comparison, and who is not in it, with the reason."""

    runs: tuple[Run, ...]
    excluded: tuple[str, ...]

    @property
    def nfe(self) -> int:
        """Evaluations of all runs together."""
        return sum(run.nfe for run in self.runs)


def default_candidates(
    sigma_data: float,
    mean: float = 0.0,
    solvers: Iterable[str] | None = None,
    steps: Iterable[str] = STEP_FAMILIES,
) -> list[Candidate]:
    """Every solver with every family of steps, in the words of `config.from_text`.

    `solvers` are by default all registered ones that can be made without being told more, some with several options;
    those that have a use for the mean and the standard deviation of the data are told both.
    """
    if solvers is None:
        solvers = [
            ":".join(filter(None, (kind, options.format(sigma_data=sigma_data, mean=mean))))
            for kind in kinds("solver")
            if all(p.default is not p.empty for p in inspect.signature(find("solver", kind)).parameters.values())
            for options in _VARIANTS.get(kind, ("",))
        ]
    made = [(name, from_text("solver", name)) for name in solvers]
    families = [from_text("steps", text) for text in steps]
    return [Candidate(name, solver, family) for name, solver in made for family in families]


def plan_runs(candidates: Sequence[Candidate], budgets: Sequence[int] = BUDGETS) -> Plan:
    """For each candidate and budget the largest N that costs at most so many evaluations, each run once.

    Out are solvers that add noise, and so do not end where the ODE does, and those whose tolerance decides on the
    evaluations. ValueError for a budget below 1, and where two candidates have one name and one kind of steps.
    """
    if not budgets or min(budgets) < 1:
        raise ValueError(f"budgets: {tuple(budgets)}; want numbers of evaluations, each at least 1")
    seen: set[tuple[str, TimeSteps]] = set()
    runs: list[Run] = []
    excluded: dict[str, dict[str, None]] = {}  # by reason; names in order, each once
    for candidate in candidates:
        key = (candidate.name, candidate.steps)
        if key in seen:
            raise ValueError(f"candidates: {candidate.name} with {candidate.steps_name} is there twice")
        seen.add(key)
        if candidate.solver.stochastic:
            excluded.setdefault("noise is added, so that the end points are not those of the ODE", {})[
                candidate.name
            ] = None
            continue
        if candidate.cost(1) is None:
            excluded.setdefault("a tolerance decides on the evaluations, not a budget", {})[candidate.name] = None
            continue
        answers: dict[int, list[int]] = {}
        for budget in sorted(set(budgets)):
            num_steps = candidate.within(budget)
            if num_steps is not None:
                answers.setdefault(num_steps, []).append(budget)
        for num_steps, of in answers.items():
            runs.append(Run(candidate, num_steps, candidate.cost(num_steps) or 0, tuple(of)))
        if not answers:
            excluded.setdefault("costs more than any budget", {})[candidate.name] = None
    return Plan(tuple(runs), tuple(f"{', '.join(names)}: {reason}" for reason, names in excluded.items()))


def compare_solvers(
    denoiser: Denoiser,
    reference: Reference,
    candidates: Sequence[Candidate] | None = None,
    budgets: Sequence[int] = BUDGETS,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SolverComparison:
    """Run every candidate from the latents of `reference` at every budget, and measure where it ends.

    The runs are those of `plan_runs`; None are all candidates of `default_candidates`. A run that fails or is not of
    the reference's problem (from its σ_max to 0) is kept as such and ends nothing. `progress(done, total, name)` counts
    evaluations before each run. ValueError as in `plan_runs`.
    """
    if candidates is None:
        candidates = default_candidates(*moments(reference))
    plan = plan_runs(candidates, budgets)
    rows, done = [], 0
    for run in plan.runs:
        if progress is not None:
            progress(done, plan.nfe, run.candidate.name)
        rows += _measure(denoiser, reference, run, batch_size, device)
        done += run.nfe
    return SolverComparison(
        tuple(rows), tuple(sorted(set(budgets))), len(reference.x), reference.error, reference.nfe, plan.excluded
    )


def moments(reference: Reference) -> tuple[float, float]:
    """(σ_data, mean) of the end points, over all their elements, to two digits."""
    std, mean = torch.std_mean(reference.x, correction=0)
    return float(f"{float(std):.2g}") or 1.0, float(f"{float(mean):.2g}")


def _measure(
    denoiser: Denoiser, reference: Reference, run: Run, batch_size: int | None, device: torch.device | str | None
) -> list[Measurement]:
    """The measurement of one run, for each budget that it answers for."""
    candidate, num_steps, nfe, budgets = run
    error, failure = EndPointError(math.inf, math.inf), ""
    squares = torch.full((len(reference.x),), math.inf, dtype=torch.float64)
    try:
        steps = candidate.at(num_steps)
        levels = steps.sigmas(sigma_range(denoiser))
        first, last = float(levels[0]), float(levels[-1])
        if not math.isclose(first, reference.sigma_max, rel_tol=0.01) or last != 0:
            raise ValueError(f"goes from σ = {first:g} to {last:g}, the reference from {reference.sigma_max:g} to 0")
        samples = sample(
            denoiser,
            latents=reference.latents,
            cond=reference.cond,
            steps=steps,
            solver=candidate.solver,
            batch_size=batch_size,
            device=device,
        )
        nfe, error = samples.nfe, reference.error_of(samples.x)
        squares = (
            (samples.x.to(reference.x) - reference.x).reshape(len(reference.x), -1).square().mean(1).cpu().double()
        )
    except (ValueError, ArithmeticError) as reason:
        failure = str(reason)
    return [Measurement(candidate, budget, num_steps, nfe, error, squares, failure) for budget in budgets]


def pareto(comparison: SolverComparison, *, margin: float = 0.0) -> list[Measurement]:
    """The measurements that no other beats with as few evaluations: by rising NFE, with falling RMS.

    Each is lower than the one before by more than a share `margin` of it.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin: {margin}; want a share from 0 to 1")
    front: list[Measurement] = []
    for row in sorted(comparison.within(max(comparison.budgets)), key=lambda row: (row.nfe, row.error.rms)):
        if not front or row.error.rms < (1 - margin) * front[-1].error.rms:
            front.append(row)
    return front


def recommend(comparison: SolverComparison, *, margin: float = 0.05) -> list[Recommendation]:
    """One candidate for each budget at which any did not fail.

    Of everything that took no more evaluations, the least RMS. Others tie with it whose RMS is at most `margin` more
    and whose excess the samples do not tell from chance: the mean difference of the squared errors of the same samples
    is below two of its standard errors. Of those that tie, the one is taken that is the best over all budgets (in the
    mean of the least RMS over its own), for the least of many was partly lucky; then the one with fewer evaluations,
    and then the first.
    """
    if not margin >= 0:
        raise ValueError(f"margin: {margin}; want a share that is not negative")
    ranked = {budget: rows for budget in comparison.budgets if (rows := comparison.within(budget))}
    general = _generality(comparison.rows, {budget: rows[0].error.rms for budget, rows in ranked.items()})
    chosen = []
    for budget, rows in ranked.items():
        tied = [row for row in rows if row is rows[0] or _ties(row, rows[0], margin)]
        row = min(tied, key=lambda row: (-general[_key(row)], row.nfe))
        chosen.append(Recommendation(budget, row, _reason(row, rows, tied)))
    return chosen


def _key(row: Measurement) -> tuple[str, TimeSteps]:
    return row.candidate.name, row.candidate.steps


def _generality(rows: Sequence[Measurement], least: Mapping[int, float]) -> dict[tuple[str, TimeSteps], float]:
    """For each candidate the mean over budgets of the least RMS over its own: 1 where it is the best everywhere."""
    shares: dict[tuple[str, TimeSteps], list[float]] = {}
    for row in rows:
        own = row.error.rms
        shares.setdefault(_key(row), []).append(min(1.0, least.get(row.budget, 0.0) / own) if own > 0 else 1.0)
    return {key: fmean(values) for key, values in shares.items()}


def _ties(row: Measurement, best: Measurement, margin: float) -> bool:
    excess = row.squares - best.squares
    chance = 2 * float(excess.std()) / math.sqrt(len(excess)) if len(excess) > 1 else 0.0
    return row.error.rms <= (1 + margin) * best.error.rms and float(excess.mean()) <= chance


def _reason(row: Measurement, rows: Sequence[Measurement], tied: Sequence[Measurement]) -> str:
    """Why this one: how it compares with the best, and the best with the others."""
    best = rows[0]
    others = {_key(other) for other in tied} - {_key(row)}
    if row.error.rms > best.error.rms:
        more = f"{row.error.rms / best.error.rms - 1:.1%} above the least, that of {best.candidate.name}"
        return f"{more} with {best.candidate.steps_name}; within chance, and better over all budgets"
    if others:
        return f"least error, {len(others)} within chance; the best of them over all budgets"
    runner_up = next((other for other in rows if _key(other) != _key(row)), None)
    if runner_up is None or row.error.rms == 0:
        return "least error"
    return f"least error; the next has {runner_up.error.rms / row.error.rms - 1:.0%} more"

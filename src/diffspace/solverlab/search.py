"""A solver for a denoiser and a budget: what is best on new samples, of all that is known and that can be fitted."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffspace.checks import check_integer, check_number, check_type
from diffspace.protocols import Denoiser, module_of, sigma_range
from diffspace.sampling.runs import home
from diffspace.sampling.sampler import Sampler
from diffspace.solverlab.compare import Measurement, SolverComparison, compare_solvers, default_samplers, moments, ties
from diffspace.solverlab.end_points import Continuous, Reference
from diffspace.solverlab.family import Family, Table, slopes_cost
from diffspace.solverlab.fit import (
    ROBUSTNESS,
    SEARCHES,
    Counted,
    Progress,
    Search,
    Spacing,
    TooFewLevels,
    find_table,
    polish,
)
from diffspace.solverlab.near_paths import NearPaths, SecantFamily
from diffspace.tensors import evaluating

_POLISH = 300.0  # c² of the loss with true slopes, in units of the median of e²
_FORKS = (1e9, ROBUSTNESS)  # those of the later rounds; the first is all but the squared error
_ROUNDS = 2
_KNOWN = 6  # solvers that need no fit and are judged; twice as many where evaluations are not limited
_KINDS, _RACE = 135, 128  # how many there are; samples that rank them near the paths
_FEW = 24  # samples
_MARGIN = 0.05
_DISAGREEMENT = 3.0  # of the error on new samples and that on those of the fit


def calibration_seeds(elements: int, total: int = 8192, most: int = 1024) -> int:
    """The default number of calibration seeds for samples with that many elements: some 8,192 elements in all.

    At least 64 seeds, since items differ, and at most 1,024. Small samples need more seeds, because errors are largest
    near the boundaries between ends, and their denoisers are cheap.
    """
    return min(max(total // elements, 64), most)


def judging_seeds(elements: int, calibration: int) -> int:
    """The number of seeds that judge a fit: four for each calibration seed, one where a sample has 2,048 elements."""
    return round(calibration * min(max(2048 / elements, 1), 4))


def search_cost(
    num_steps: int, seeds: int, judging: int, elements: int, *, iterations: int = 8, evaluations: int | None = None
) -> int:
    """About how many evaluations of a sample `search_solver` makes, at most, beside the exact paths.

    Args:
        num_steps, iterations, evaluations: as in `search_solver`.
        seeds: how many samples the fit has.
        judging: how many judge it.
        elements: of a sample.
    """
    n, judge, half = num_steps, num_steps * judging, -(-iterations // 2)
    first, mean_first = (half * (slopes_cost(levels, True) + 2 * n) * seeds + judge for levels in (n, n + 1))
    near = (1 + 2 * iterations) * n * seeds + 2 * judge
    least = 2 * (n * seeds + judge) + _KNOWN * judge + n * seeds
    known, few = 2 * _KNOWN * judge + n * seeds, _racers(elements)
    race = (few * _KINDS + 6 * few * 4 * few) * n
    total = 2 * near + first + (1 + _ROUNDS * len(_FORKS)) * mean_first + known + race
    return total if evaluations is None else min(total, max(evaluations, least))


@dataclass(frozen=True, eq=False)
class SolverSearch:
    """What was tried for a budget, judged on samples that no fit has seen, and the choice.

    `choice` has the least RMS, or one within chance of it. `fit` is its error on the samples of the fit.
    """

    comparison: SolverComparison
    choice: Measurement
    fit: Measurement

    @property
    def sampler(self) -> Sampler:
        """The choice."""
        return self.choice.sampler

    @property
    def standard_error(self) -> float:
        """That of the RMS of the choice, over fresh samples; of a single one the RMS itself."""
        squares, rms = self.choice.squares, self.choice.error.rms
        if len(squares) < 2 or rms == 0:
            return rms
        return float(squares.std()) / math.sqrt(len(squares)) / (2 * rms)


def search_solver(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    validation: Reference | None = None,
    iterations: int = 8,
    evaluations: int | None = None,
    noise: float = 1e-5,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SolverSearch:
    """Fit solvers of N evaluations in several ways, and judge them on other samples beside the best that need no fit.

    Tried are linear multistep solvers, with the first D evaluated and with the mean of the data in its place: their
    levels are found near the exact paths, without an evaluation; they are fitted to the ends by slopes that take none,
    and then by true ones, with losses that look at outliers more and less. Judged beside them are, of the solvers that
    need no fit (`default_samplers`), those that are best on some samples of the fit: twelve, and with a limit six, by
    runs near the paths. The choice has the least RMS; of those that differ from it by less than chance and 5 %, the
    least median. A warning tells of samples that are too few, and of a choice whose error on new samples is far above
    that on the samples of the fit. Slopes are differences over σ/1000, which a denoiser in bfloat16 hides: fit in
    float32 or better.

    Args:
        denoiser, num_steps, iterations, noise, batch_size, progress: as in `fit_multistep`; `progress` counts the
            iterations of all searches.
        truth: the exact paths of calibration seeds: `reference(…, execution=Execution(trajectory=True))`.
        evaluations: about the most evaluations of a sample in all, beside those of `truth` and `validation`: the search
            ends earlier, for slow denoisers, but not before the least that it takes (`search_cost` of 1). Default: as
            many as it takes.
        validation: the end points of other seeds. Default: those of the last quarter of `truth`, which no fit sees. Few
            samples, near a boundary between two ends, make most of the RMS: 500 tell more than 50.
    """
    check_integer("num_steps", num_steps, 1)
    check_integer("iterations", iterations, 0)
    check_number("noise", noise, "[0, inf)")
    for name, given in (("truth", truth), ("validation", truth if validation is None else validation)):
        check_type(name, given, Reference)
        if not math.isclose(given.sigma_max, truth.sigma_max, rel_tol=1e-6):
            raise ValueError(f"{name}: starts at σ = {given.sigma_max:g}, truth at {truth.sigma_max:g}")
    if evaluations is not None:
        check_integer("evaluations", evaluations, 1)
    if truth.path is None:
        raise ValueError("truth: has no trajectory; make it by reference(…, execution=Execution(trajectory=True))")
    _check_precision(denoiser)
    fitted_to, judged_on = _split(truth) if validation is None else (truth, validation)
    judge = _Judge(denoiser, num_steps, (fitted_to, judged_on), batch_size)
    if evaluations is None:
        known = _best_known(denoiser, num_steps, fitted_to, batch_size)
    else:
        known = _best_near(NearPaths(denoiser, fitted_to.rows(slice(0, _RACE))), num_steps)
    half = -(-iterations // 2)
    counted = Counted(progress, 2 * ((SEARCHES + 1) * iterations + half) + _ROUNDS * len(_FORKS) * half)
    spent = len(known) * judge.price + num_steps * len(fitted_to.x)
    left = math.inf if evaluations is None else evaluations - spent
    with evaluating(Continuous(denoiser), grad=False):
        _fit(judge, NearPaths(denoiser, fitted_to), iterations, _Fits(judge, noise, left, counted))
    return judge.choose(known)


def fit_solver(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    validation: Reference | None = None,
    iterations: int = 8,
    evaluations: int | None = None,
    noise: float = 1e-5,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sampler:
    """The sampler of at most N evaluations that `search_solver` chooses, with the same arguments."""
    found = search_solver(
        denoiser,
        num_steps,
        truth,
        validation=validation,
        iterations=iterations,
        evaluations=evaluations,
        noise=noise,
        batch_size=batch_size,
        progress=progress,
    )
    return found.sampler


@dataclass(frozen=True, eq=False)
class _Fit:
    """A fitted table, and how it did on new samples."""

    family: Family
    spacing: Spacing
    table: Table
    row: Measurement

    def rms(self) -> float:
        """On new samples."""
        return self.row.error.rms

    def price(self, family: Family) -> int:
        """Evaluations of one iteration of `polish`: slopes, and on the average two runs."""
        evaluations = len(self.table.levels) - (family.mean is not None)
        slopes = family.cost(self.table, self.spacing.moves(self.table))
        return (slopes + 2 * evaluations) * len(family.start)


class _Fits:
    """All fits of a search, each judged, as far as the evaluations that are `left` go."""

    def __init__(self, judge: _Judge, noise: float, left: float, counted: Counted) -> None:
        self.judge, self.noise, self.left, self.counted = judge, noise, left, counted
        self.all: list[_Fit] = []

    def start(self, kind: str, near: NearPaths, mean: float | None, iterations: int) -> _Fit:
        """Levels found near the paths, and their stagewise weights."""
        judge = self.judge
        family = Family(judge.denoiser, judge.samples[0], judge.batch_size, mean)
        spacing = Spacing(judge.denoiser, family.truth, judge.budget + (mean is not None))
        search, told = Search(iterations, ROBUSTNESS, self.noise), self.counted.stage(SEARCHES * iterations)
        table = find_table(family, near, spacing, search, told)
        self.left -= judge.budget * len(family.start)
        return self.add(f"{kind}, stagewise", family, spacing, table)

    def add(self, name: str, family: Family, spacing: Spacing, table: Table) -> _Fit:
        """Judge it."""
        self.left -= self.judge.price
        self.all.append(_Fit(family, spacing, table, self.judge(name, table.sampler(family.mean))))
        return self.all[-1]

    def polish(self, name: str, fit: _Fit, family: Family, iterations: int, robustness: float) -> _Fit:
        """Go on from a fit, as far as there are evaluations for it; `family` says how slopes are taken."""
        told, can = self.counted.stage(iterations), iterations
        if self.left != math.inf:
            can = min(can, int(max(self.left - self.judge.price, 0)) // fit.price(family))
        if not can:
            return fit
        before = family.evaluations
        table = polish(family, fit.table, fit.spacing, Search(can, robustness, self.noise), told)
        self.left -= family.evaluations - before
        return self.add(name, fit.family, fit.spacing, table)


def _fit(judge: _Judge, near: NearPaths, iterations: int, fits: _Fits) -> None:
    """From levels found near the paths, first by slopes that take no evaluation, then by true ones."""
    half = -(-iterations // 2)
    means = {"fitted": None, "fitted, mean first": moments(judge.samples[0])[1]}
    best: dict[str, _Fit] = {}
    for kind, mean in means.items():
        with contextlib.suppress(TooFewLevels):
            best[kind] = fits.start(kind, near, mean, iterations)
    if not best:
        _warn(
            f"num_steps: {judge.budget} levels of the model's table cannot be fitted; only known solvers are compared"
        )
        return
    for kind, fit in _by_error(best):
        found = fits.polish(f"{kind}, near slopes", fit, SecantFamily(fit.family, near), iterations, ROBUSTNESS)
        best[kind] = min(fit, found, key=_Fit.rms)
    for kind, fit in _by_error(best):
        fits.polish(kind, fit, fit.family, half, _POLISH)
    continued: set[Sampler] = set()
    for k in range(_ROUNDS):  # again from the same numbers would be the same again
        left = [each for each in fits.all if each.row.sampler not in continued]
        if not left:
            break
        fit = min(left, key=_Fit.rms)
        continued.add(fit.row.sampler)
        for robustness in _FORKS:
            fits.polish(f"fitted, round {k + 2}, c² = {robustness:g}", fit, fit.family, half, robustness)


def _by_error(fits: Mapping[str, _Fit]) -> list[tuple[str, _Fit]]:
    return sorted(fits.items(), key=lambda each: each[1].rms())


def _split(truth: Reference) -> tuple[Reference, Reference]:
    """The samples that are fitted to, and those on which the result is judged."""
    count = len(truth.x)
    if count < 4:
        return truth, truth
    cut = count - count // 4
    return truth.rows(slice(0, cut)), truth.rows(slice(cut, None))


def _racers(elements: int) -> int:
    """How many samples of that many elements are in the first race among known solvers."""
    return min(max(4096 // elements, 4), 16)


def _best_known(denoiser: Denoiser, budget: int, truth: Reference, batch_size: int | None) -> dict[str, Sampler]:
    """Of the samplers that need no fit, those with the least RMS on some samples: fewer, the larger these are."""
    samplers = default_samplers(*moments(truth), sigma_min=sigma_range(denoiser)[0])
    device = home(denoiser, truth.x)
    few = _racers(truth.x[0].numel())
    for count, kept in ((few, 4 * few), (6 * few, 2 * _KNOWN)):
        some = truth.rows(slice(0, count))
        found = compare_solvers(denoiser, some, samplers, (budget,), batch_size=batch_size, device=device)
        samplers = {row.name: samplers[row.name] for row in found.within(budget)[:kept]}
    return samplers


def _best_near(near: NearPaths, budget: int) -> dict[str, Sampler]:
    """The same near the exact paths, without evaluations, and less surely so."""
    samplers = default_samplers(*moments(near.truth), sigma_min=sigma_range(near.denoiser)[0])
    rows = compare_solvers(near, near.truth, samplers, (budget,), device=near.truth.x.device).within(budget)
    return {row.name: samplers[row.name] for row in rows[:_KNOWN]}


class _Judge:
    """Measures samplers on new samples, keeps what it measured, and chooses."""

    def __init__(
        self, denoiser: Denoiser, budget: int, samples: tuple[Reference, Reference], batch_size: int | None
    ) -> None:
        self.denoiser, self.budget, self.samples, self.batch_size = denoiser, budget, samples, batch_size
        self.tried: dict[str, Measurement] = {}
        self.price = budget * len(samples[1].x)
        """Evaluations of a measurement."""

    def measure(self, on: Reference, samplers: Mapping[str, Sampler]) -> SolverComparison:
        size, device = self.batch_size, home(self.denoiser, on.x)
        return compare_solvers(self.denoiser, on, samplers, (self.budget,), batch_size=size, device=device)

    def __call__(self, name: str, sampler: Sampler) -> Measurement:
        self.tried[name] = self.measure(self.samples[1], {name: sampler}).rows[0]
        return self.tried[name]

    def choose(self, known: Mapping[str, Sampler]) -> SolverSearch:
        """Of all that was measured and those that need no fit."""
        seen, unseen = self.samples
        judged = self.measure(unseen, known)
        judged = replace(judged, rows=(*self.tried.values(), *judged.rows))
        rows = judged.within(self.budget)
        if not rows:
            raise ValueError(f"num_steps: no solver of {self.budget} evaluations reaches the end points")
        choice = min((row for row in rows if ties(row, rows[0], _MARGIN)), key=lambda row: row.error.median)
        found = SolverSearch(judged, choice, self.measure(seen, {choice.name: choice.sampler}).rows[0])
        new, old = choice.error.rms, found.fit.error.rms
        if len(seen.x) < _FEW:
            _warn(f"{len(seen.x)} samples are few to fit a solver to; expected at least {_FEW}")
        elif seen is unseen:
            _warn("validation: is truth itself; samples of the fit cannot judge it")
        elif new > _DISAGREEMENT * old:
            _warn(f"the error is {new:.2g} on new samples, {old:.2g} on those of the fit; more seeds would help")
        return found


def _check_precision(denoiser: Denoiser) -> None:
    module = module_of(denoiser)
    short = module and {p.dtype for p in module.parameters() if p.is_floating_point() and p.dtype.itemsize < 4}
    if short:
        _warn(f"denoiser: its weights are in {short.pop()}, which hides differences over σ/1000; fit in float32")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
